"""A GPT of 4 layers: elementwise work between small products; W4 and W6."""

import contest
import inference
import initial
import jax_peer
import numpy as np
import our_peer
import torch_peer

VOCABULARY, CONTEXT, LAYERS, HEADS, WIDTH = 96, 128, 4, 4, 128
BATCH, LR = 8, 1e-3


def shapes():
    found = {"wte.weight": (VOCABULARY, WIDTH), "wpe.weight": (CONTEXT, WIDTH)}
    for number in range(LAYERS):
        for layer, (outputs, inputs) in {
            "attn.c_attn": (3 * WIDTH, WIDTH),
            "attn.c_proj": (WIDTH, WIDTH),
            "mlp.c_fc": (4 * WIDTH, WIDTH),
            "mlp.c_proj": (WIDTH, 4 * WIDTH),
        }.items():
            found[f"h.{number}.{layer}.weight"] = (outputs, inputs)
            found[f"h.{number}.{layer}.bias"] = (outputs,)
        for norm in ("ln_1", "ln_2"):
            found |= {f"h.{number}.{norm}.{kind}": (WIDTH,) for kind in ("weight", "bias")}
    return found | {f"ln_f.{kind}": (WIDTH,) for kind in ("weight", "bias")}


WEIGHTS = initial.uniform(shapes())
PRODUCTS = 12 * LAYERS * WIDTH * WIDTH + VOCABULARY * WIDTH + 2 * LAYERS * CONTEXT * WIDTH
PARAMETERS = sum(array.size for array in WEIGHTS.values())


def samples(batch):
    rng = np.random.default_rng(1)
    text = rng.integers(0, VOCABULARY, (batch, CONTEXT + 1))
    return np.ascontiguousarray(text[:, :-1]), np.ascontiguousarray(text[:, 1:])


def our_network(xb):
    return xb.nn.GPT(VOCABULARY, CONTEXT, LAYERS, HEADS, WIDTH)


def torch_network(torch):
    nn, functional = torch.nn, torch.nn.functional

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.c_attn = nn.Linear(WIDTH, 3 * WIDTH)
            self.c_proj = nn.Linear(WIDTH, WIDTH)

        def forward(self, x):
            q, k, v = (
                part.unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2)
                for part in self.c_attn(x).split(WIDTH, -1)
            )
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.c_proj(y.transpose(1, 2).flatten(2))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.ln_1, self.attn, self.ln_2 = nn.LayerNorm(WIDTH), Attention(), nn.LayerNorm(WIDTH)
            self.mlp = nn.Sequential()
            self.mlp.c_fc = nn.Linear(WIDTH, 4 * WIDTH)
            self.mlp.act = nn.GELU(approximate="tanh")
            self.mlp.c_proj = nn.Linear(4 * WIDTH, WIDTH)

        def forward(self, x):
            x = x + self.attn(self.ln_1(x))
            return x + self.mlp(self.ln_2(x))

    class GPT(nn.Module):
        def __init__(self):
            super().__init__()
            self.wte, self.wpe = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(CONTEXT, WIDTH)
            self.h = nn.ModuleList([Block() for _ in range(LAYERS)])
            self.ln_f = nn.LayerNorm(WIDTH)
            self.register_buffer("places", torch.arange(CONTEXT), persistent=False)

        def forward(self, x):
            y = self.wte(x) + self.wpe(self.places[: x.shape[1]])
            for block in self.h:
                y = block(y)
            return self.ln_f(y) @ self.wte.weight.T

    return GPT()


def jax_network(jax, weights, x):
    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x, name):
        centered = x - x.mean(-1, keepdims=True)
        scale = jax.lax.rsqrt((centered * centered).mean(-1, keepdims=True) + 1e-5)
        return centered * scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    y = weights["wte.weight"][x] + weights["wpe.weight"][: x.shape[1]]
    for number in range(LAYERS):
        block = f"h.{number}"
        joint = linear(norm(y, f"{block}.ln_1"), f"{block}.attn.c_attn")
        q, k, v = (
            part.reshape(*part.shape[:2], HEADS, -1) for part in jax.numpy.split(joint, 3, axis=-1)
        )
        mixed = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        y = y + linear(mixed.reshape(y.shape), f"{block}.attn.c_proj")
        hidden = linear(norm(y, f"{block}.ln_2"), f"{block}.mlp.c_fc")
        y = y + linear(jax.nn.gelu(hidden, approximate=True), f"{block}.mlp.c_proj")
    return norm(y, "ln_f") @ weights["wte.weight"].T


def ours(**form):
    return our_peer.trained(
        our_network,
        WEIGHTS,
        *samples(BATCH),
        optimizer="AdamW",
        loss="TokenCrossEntropyLoss",
        lr=LR,
        **form,
    )


def pytorch(**form):
    return torch_peer.trained(
        torch_network,
        WEIGHTS,
        *samples(BATCH),
        optimizer="AdamW",
        loss=lambda torch, logits, y: torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), y.flatten()
        ),
        lr=LR,
        fused=True,
        **form,
    )


TRAINING = contest.Workload(
    name="w4_gpt",
    title=f"W4: GPT, {LAYERS} layers, width {WIDTH}, {CONTEXT} tokens, batch {BATCH}, AdamW",
    contestants={
        "xbackprop": ours,
        "xbackprop, shards": lambda: ours(shards=contest.threads()),
        "PyTorch, eager": pytorch,
        "PyTorch, compile": lambda: pytorch(compiled=True),
        "JAX, jit": lambda: jax_peer.trained(
            jax_network,
            WEIGHTS,
            *samples(BATCH),
            optimizer="adamw",
            learning_rate=LR,
            weight_decay=1e-2,
        ),
    },
    flops=3 * 2 * BATCH * CONTEXT * PRODUCTS,
    # Some 20 arrays of the width a layer and token, written and read, forward and backward.
    bytes_moved=4 * (BATCH * CONTEXT * WIDTH * LAYERS * 20 * 4 + 10 * PARAMETERS),
    targets=(contest.Target("PyTorch", 1.1, 1.5),),
    wait={"JAX, jit": jax_peer.wait},
    tolerance=1e-2,
    has_memory_target=True,
)


def inference_of(batch):
    return inference.workload(
        "gpt",
        f"GPT of W4, inference of {CONTEXT} tokens",
        (our_network, torch_network, jax_network),
        WEIGHTS,
        samples(batch)[0],
        forms={"eager": {}, "compile": {"compiled": True}},
        flops=2 * batch * CONTEXT * PRODUCTS,
        bytes_moved=4 * (batch * CONTEXT * WIDTH * LAYERS * 20 * 2 + PARAMETERS),
        tolerance=1e-2,
    )


if __name__ == "__main__":
    contest.main(__file__, TRAINING, inference_of(1), inference_of(256))
