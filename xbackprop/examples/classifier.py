"""Classification: ten digits, softmax, and cross-entropy, whose gradient is p - y.

Run: python -m xbackprop.examples.classifier
"""

import numpy as np

import xbackprop as xb


def gradient_by_hand(logits: np.ndarray, label: int) -> np.ndarray:
    """Return dLoss/dlogits of Loss = -log p[label], where p = exp(logits) / sum(exp(logits)).

    Loss = log(sum(exp(logits))) - logits[label]: the first term's derivative is p, the second's is
    y, which is 1 at the label and 0 elsewhere. So the gradient is p - y.
    """
    p = np.exp(logits) / np.exp(logits).sum()
    return p - (np.arange(len(p)) == label)


def gradient_of_library(logits: np.ndarray, label: int) -> np.ndarray:
    """Return the same, as the loss computes it for a batch of one."""
    loss_fn = xb.nn.CrossEntropyLoss()
    _, saved = loss_fn.forward(xb.asarray(logits[None], dtype=np.float64), xb.asarray([label]))
    return xb.to_host(loss_fn.backward(1.0, saved))[0]


def main(epochs: int = 15) -> None:
    """Show the gradient for one image, train, and look at the image again."""
    digits = xb.data.load_digits()  # 8 x 8 pixels from 0 to 1, labels from 0 to 9
    model = xb.nn.Sequential(xb.nn.Linear(64, 32), xb.nn.ReLU(), xb.nn.Linear(32, 10), rng=0)
    optimizer = xb.optim.Adam(model.parameters(), lr=3e-3)
    trainer = xb.Trainer(model, xb.nn.CrossEntropyLoss(), optimizer)
    image, label = digits.x_test[:1], int(digits.y_test[0])
    for pixels in image.reshape(8, 8):
        print("".join(2 * " .:*#"[round(4 * float(pixel))] for pixel in pixels))

    print(f"a {label}; dLoss/dlogits for each digit, before training")
    logits = trainer.predict(image)[0].astype(np.float64)
    print("  by hand", gradient_by_hand(logits, label).round(3))
    print("  library", gradient_of_library(logits, label).round(3))

    print(f"\na guess among ten costs log(10) = {np.log(10):.4f}")
    for row in trainer.fit(digits.x_train, digits.y_train, epochs=epochs, rng=0):
        if row.epoch in (1, 2, 4, 8, epochs):
            print(f"  epoch {row.epoch:2d}   Loss {row.train_loss:.4f}")
    score = trainer.evaluate(digits.x_test, digits.y_test)
    print(f"right on {score.accuracy:.1%} of {len(digits.y_test)} images it never saw\n")
    p = np.exp(trainer.predict(image)[0])
    print("p of the first image:", (p / p.sum()).round(3))


if __name__ == "__main__":
    main()
