"""Images: a convolution is a product, and so is its backward.

Run: python -m xbackprop.examples.convnet
"""

import numpy as np

import xbackprop as xb


def by_hand(image: np.ndarray, w: np.ndarray) -> list[np.ndarray]:
    """Return y = w X, and for Loss = sum(y^2) / 2 the gradients dLoss/dimage and dLoss/dw.

    X has a column for every place of the kernel: the pixels it sees there. So y = w X is a linear
    unit, once a place. With g = dLoss/dy = y: dLoss/dw = g X^T, and dLoss/dX = w^T g. X holds a
    pixel once for every element of the kernel that sees it; in the image their gradients add up.
    """
    size, places = len(w), range(len(image) - len(w) + 1)
    X = np.array([image[i : i + size, j : j + size].ravel() for i in places for j in places]).T
    y = w.ravel() @ X
    grad_x = np.outer(w.ravel(), y).reshape(size, size, len(places), len(places))
    grad_image = np.zeros_like(image)
    for i, j in np.ndindex(size, size):
        grad_image[i : i + len(places), j : j + len(places)] += grad_x[i, j]
    return [y, grad_image, y @ X.T]


def by_library(image: np.ndarray, w: np.ndarray) -> list[np.ndarray]:
    """Return the same of a Conv2d, whose arrays have axes for the batch and for channels too."""
    layer = xb.nn.Conv2d(1, 1, len(w), bias=False, dtype=np.float64)
    layer.load_state_dict({"weight": w[None, None]})
    y, saved = layer.forward(xb.asarray(image[None, None], dtype=np.float64))
    return [xb.to_host(a) for a in (y, layer.backward(y, saved), layer.weight.grad)]


def main(epochs: int = 10) -> None:
    """Compare both for one image and a kernel that finds upright edges; then train."""
    digits = xb.data.load_digits()  # 8 x 8 pixels from 0 to 1, labels from 0 to 9
    x_train, x_test = (x.reshape(-1, 1, 8, 8) for x in (digits.x_train, digits.x_test))
    image, w = x_test[0, 0].astype(np.float64), np.outer([1.0, 2.0, 1.0], [1.0, 0.0, -1.0])
    names = ("y", "dLoss/dimage", "dLoss/dw")
    for name, hand, library in zip(names, by_hand(image, w), by_library(image, w), strict=True):
        print(f"{name:13}by hand", hand.ravel()[:6].round(3))
        print(f"{'':13}library", library.ravel()[:6].round(3))

    nn = xb.nn
    first, second = nn.Conv2d(1, 8, 3, padding=1, rng=0), nn.Conv2d(8, 16, 3, 2, 1, rng=1)
    last = nn.Linear(16 * 4 * 4, 10, rng=2)
    model = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), last)
    optimizer = xb.optim.Adam(model.parameters(), lr=3e-3)
    trainer = xb.Trainer(model, nn.CrossEntropyLoss(), optimizer)
    print(f"\na guess among ten costs log(10) = {np.log(10):.4f}")
    for row in trainer.fit(x_train, digits.y_train, epochs=epochs, rng=0):
        print(f"  epoch {row.epoch:2d}   Loss {row.train_loss:.4f}")
    print(f"right on {trainer.evaluate(x_test, digits.y_test).accuracy:.1%} of images it never saw")


if __name__ == "__main__":
    main()
