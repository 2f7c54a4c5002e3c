"""Text: a block of a transformer by hand, and its backward.

Run: python -m xbackprop.examples.transformer
"""

from typing import Any

import numpy as np

import xbackprop as xb

TEXT = "to be, or not to be, that is the question: whether 'tis nobler in the mind to suffer "


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return exp(s) / sum exp(s) of each row; the largest score of a row is taken off first."""
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attention(x: np.ndarray, W: dict[str, np.ndarray]) -> tuple[np.ndarray, Any]:
    """Return y = softmax(q k^T / sqrt(d) + mask) v W_o: each token takes from those before it.

    q, k and v are x times a matrix each: what a token asks for, what it offers, what it gives.
    """
    q, k, v = x @ W["q"], x @ W["k"], x @ W["v"]
    scores = q @ k.T / np.sqrt(q.shape[1])
    scores[np.triu_indices(len(x), 1)] = -np.inf  # what comes later is hidden
    p = softmax(scores)
    return p @ v @ W["o"], (x, q, k, v, p)


def attention_backward(g: np.ndarray, saved: Any, W: dict[str, np.ndarray]) -> tuple[Any, Any]:
    """Return dLoss/dx and dLoss/dW from g = dLoss/dy: the forward, from its last line to its first.

    y = m W_o with m = p v: dm = g W_o^T, dW_o = m^T g, then dv = p^T dm and dp = dm v^T. In a row
    of softmax a score lowers the others: dp_i/ds_j = p_i (1 if i = j, else 0) - p_i p_j, therefore
    ds = p (dp - sum(dp p)). The scores are a product: dq = ds k / sqrt(d), dk = ds^T q / sqrt(d).
    x was used three times, and the three gradients add up.
    """
    x, q, k, v, p = saved
    d_mixed = g @ W["o"].T
    dp, dv = d_mixed @ v.T, p.T @ d_mixed
    ds = p * (dp - (dp * p).sum(-1, keepdims=True)) / np.sqrt(q.shape[1])
    dq, dk = ds @ k, ds.T @ q
    grads = {"q": x.T @ dq, "k": x.T @ dk, "v": x.T @ dv, "o": (p @ v).T @ g}
    return dq @ W["q"].T + dk @ W["k"].T + dv @ W["v"].T, grads


def block(x: np.ndarray, W: dict[str, np.ndarray]) -> tuple[np.ndarray, Any]:
    """Return y = h + relu(h W_1) W_2 with h = x + attention(x): each sum leaves a way past."""
    added, attended = attention(x, W)
    h = x + added
    hidden = np.maximum(h @ W["1"], 0)
    return h + hidden @ W["2"], (attended, h, hidden)


def block_backward(g: np.ndarray, saved: Any, W: dict[str, np.ndarray]) -> tuple[Any, Any]:
    """Return dLoss/dx and dLoss/dW. A sum passes its gradient to both sides; they add up again."""
    attended, h, hidden = saved
    d_hidden = (g @ W["2"].T) * (hidden > 0)
    dh = g + d_hidden @ W["1"].T
    dx, grads = attention_backward(dh, attended, W)
    return dh + dx, {**grads, "1": h.T @ d_hidden, "2": hidden.T @ g}


def largest_difference() -> float:
    """Compare dLoss/dW of Loss = sum(y^2) / 2 with central differences, one weight at a time."""
    rng = np.random.default_rng(0)
    shapes = {"q": (6, 6), "k": (6, 6), "v": (6, 6), "o": (6, 6), "1": (6, 12), "2": (12, 6)}
    W = {name: rng.normal(size=shape) / 3 for name, shape in shapes.items()}
    x, eps, worst = rng.normal(size=(5, 6)), 1e-6, 0.0
    y, saved = block(x, W)
    _, grads = block_backward(y, saved, W)
    for name, w in W.items():
        for place in np.ndindex(w.shape):
            before, loss = w[place], []
            for w[place] in (before + eps, before - eps):
                loss.append((block(x, W)[0] ** 2).sum() / 2)
            w[place] = before
            difference = abs((loss[0] - loss[1]) / (2 * eps) - grads[name][place])
            worst = max(worst, difference / (1 + abs(grads[name][place])))
    return float(worst)


def main(steps: int = 60) -> None:
    """Check the block, then let two of the library's blocks learn a sentence by heart."""
    is_right = largest_difference() < 1e-7
    print(f"dLoss/dW by hand {'equals' if is_right else 'is not'} what differences say\n")
    tokenizer = xb.data.CharacterTokenizer(TEXT)
    ids = tokenizer.encode(TEXT)
    model = xb.nn.GPT(tokenizer.vocab_size, len(TEXT), 2, num_heads=2, embed_dim=32, rng=0)
    loss_fn = xb.nn.TokenCrossEntropyLoss()
    optimizer = xb.optim.AdamW(model.parameter_groups(0.1), lr=1e-2)
    step = xb.value_and_grad(model, loss_fn)
    x, y = xb.asarray(ids[None, :-1]), xb.asarray(ids[None, 1:])
    for number in range(steps + 1):
        optimizer.zero_grad()
        loss, _ = step(x, y)
        if number % 20 == 0:
            written = tokenizer.decode(list(model.generate(ids[:2], 40, temperature=0)))
            print(f"step {number:3d}  Loss {float(loss):.3f}  {TEXT[:2]}|{written}")
        optimizer.step()


if __name__ == "__main__":
    main()
