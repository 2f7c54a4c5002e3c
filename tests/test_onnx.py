"""Every row of the table that ONNX can express: the same numbers in onnxruntime."""

import numpy as np
import pytest
from layer_cases import CASES
from layer_cases.attention import Attend, AttendUnseen
from layer_cases.containers import Ladder, TwoHeads
from layer_cases.losses import LOSSES
from layer_cases.recurrent import Flat
from layer_cases.transformer import Masked

import xbackprop as xb
from xbackprop import nn
from xbackprop.interop.onnx import save_onnx, to_onnx
from xbackprop.interop.onnx.registry import exporters

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

LAYERS = [case for case in CASES if case not in LOSSES]
OF_LOSSES = {type(case.make()) for case in LOSSES}


@pytest.fixture(autouse=True)
def _on_the_cpu():
    with xb.use_device("cpu"):
        yield


def draw(case, seed=0):
    made = case.inputs(np.random.default_rng(seed))
    inputs = [np.asarray(x) for x in (made if isinstance(made, tuple) else (made,))]
    return [x.astype(np.float32) if x.dtype.kind == "f" else x for x in inputs]


def flat(structure):
    if isinstance(structure, (tuple, list)):
        return [array for part in structure for array in flat(part)]
    return [] if structure is None else [np.asarray(structure)]


def run(proto, inputs):
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    fed = {}
    for place, array in zip(session.get_inputs(), inputs, strict=True):
        fed[place.name] = array if array.dtype.kind in "fb" else array.astype(np.int64)
    return session.run(None, fed)


# --- composites of the rows, written as those of a user would be --------------------------


def masked(graph, layer, *inputs):
    count = len(inputs) - len(layer.masks)
    masks = dict(zip(layer.masks, inputs[count:], strict=True))
    return graph.child(layer.module, "module", *inputs[:count], **masks, **layer.options)


def attend(graph, layer, *inputs):
    count = len(inputs) - len(layer.masks)
    arrays = inputs[:count] * (3 if count == 1 else 1)
    outputs = masked(graph, layer, *arrays, *inputs[count:])
    return outputs if layer.shows_weights else outputs[0]


def one_by_one(graph, layer, x, *states):
    if layer.lengths is not None:
        raise graph.refuse(layer, "lengths")
    hx = layer.module.nested(states) if states else None
    return tuple(_leaves(graph.child(layer.module, "module", x, hx)))


def _leaves(values):
    if not isinstance(values, tuple):
        return [values]
    return [leaf for part in values for leaf in _leaves(part)]


def ladder(graph, layer, x):
    for number, step in enumerate(layer.steps):
        x = graph.add(x, graph.child(step, f"steps.{number}", x))
    return x


def two_heads(graph, layer, x):
    first = graph.child(layer.heads["scale"], "scale", x)
    return graph.multiply(first, graph.child(layer.heads["shared"], "shared", x))


# Layers whose first axis is the batch in every row.
BATCHED = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.LayerNorm,
    nn.GroupNorm, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Upsample, nn.PixelShuffle,
    nn.Flatten, nn.Embedding, nn.Sequential, nn.ResNet, nn.GPT, nn.Unfold, nn.Fold, nn.GELU,
    nn.LocalResponseNorm, nn.ChannelShuffle, nn.InstanceNorm2d, nn.Concat, nn.Residual,
)  # fmt: skip
OURS = {
    Masked: masked, Attend: attend, AttendUnseen: attend, Ladder: ladder, TwoHeads: two_heads,
    Flat: one_by_one,
}  # fmt: skip


# What has no expression in ONNX, or none in onnxruntime; all else must be exported.
REFUSED = (
    "FractionalMaxPool", "MaxUnpool", "LSTM with projection", "LSTM with frozen",
    "packed sequences",
    "with offsets", "include_last_offset", "EmbeddingBag per_sample_weights",
    "EmbeddingBag sum padding_idx", "EmbeddingBag mean padding_idx", "EmbeddingBag max padding_idx",
    "EmbeddingBag of int32", "EmbeddingBag from_pretrained", "Attention groups", "bias_kv",
    "zero_attn", "extra keys", "MultiheadAttention both, batch", "MultiheadAttention both float",
    "RotaryEmbedding positions",
    "PairwiseDistance p=0$", "PairwiseDistance of numbers", "CosineSimilarity of broadcast inputs",
    "ConvTranspose2d output_padding beyond the stride", "oftmax of a number",
    "AdaptiveMaxPool1d 3, return", "AdaptiveMaxPool2d 3, return", "AdaptiveMaxPool3d 3, return",
)  # fmt: skip
rows = pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name.replace(" ", "-"))


def batch_axis_of(case, inputs):
    lengths = {len(x) for x in inputs if x.ndim}
    return 0 if case.has_batch and len(lengths) == 1 else None


@rows
def test_onnxruntime_computes_the_same(case):
    model = case.make().eval()
    inputs = draw(case)
    axis = batch_axis_of(case, inputs)
    if any(name in case.name + "$" for name in REFUSED):
        with pytest.raises(NotImplementedError, match=r"export to ONNX: \w+.* has no expression"):
            to_onnx(model, *inputs, batch_axis=axis, more=OURS)
        return
    proto = to_onnx(model, *inputs, batch_axis=axis, more=OURS)
    compare(proto, model, inputs)
    if axis == 0 and isinstance(model, BATCHED):
        compare(proto, model, [np.concatenate([x, x[:1]]) for x in inputs])


def compare(proto, model, inputs):
    for actual, expected in zip(run(proto, inputs), flat(model(*inputs)), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


# Classes without any expression: losses apart, which are no part of a network.
WITHOUT = {
    "Module", "ModuleDict", "ModuleList", "FractionalMaxPool2d", "FractionalMaxPool3d",
    "MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d",
}  # fmt: skip


def test_every_class_is_exported_or_refused_by_name():
    """Also one that comes tomorrow: it stands in the registry, or in the set above."""
    classes = [cls for cls in vars(nn).values() if isinstance(cls, type)]
    layers = {cls for cls in classes if issubclass(cls, nn.Module)} - OF_LOSSES - {nn.Loss}
    assert {cls.__name__ for cls in layers - set(exporters())} == WITHOUT
    assert not OF_LOSSES & set(exporters())
    for case in LOSSES:
        model, inputs = case.make(), draw(case)
        name = type(model).__name__
        with pytest.raises(NotImplementedError, match=rf"export to ONNX: {name} has no expression"):
            to_onnx(model, *inputs, batch_axis=None)


def test_recurrent_layers_take_any_batch_along_axis_1():
    for model in (nn.LSTM(3, 4, 2, bidirectional=True, rng=0), nn.GRU(3, 4, rng=0)):
        x = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
        proto = to_onnx(model, x, batch_axis=1)
        compare(proto, model, [np.concatenate([x, x, x], axis=1)])


def test_model_is_left_as_it_was_and_the_file_is_checked(tmp_path):
    model = nn.Sequential(nn.Linear(3, 4, rng=0), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.ReLU())
    before = {key: array.copy() for key, array in model.state_dict().items()}
    model[2].eval()
    save_onnx(tmp_path / "m.onnx", model, np.zeros((2, 3)), metadata={"who": "me"})
    assert [module.training for module in model] == [True, True, False, True]
    for key, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[key])
    proto = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(proto, full_check=True)
    assert [(s.domain, s.version) for s in proto.opset_import] == [("", 17)]
    assert proto.metadata_props[0].value == "me"
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_a_model_on_a_device_stays_there():
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    parts = nn.LearnedPositionalEmbedding(3, 4), nn.Dropout(0.5), nn.Linear(4, 2)
    model = nn.Sequential(*parts, rng=0).to("fake")
    proto = to_onnx(model, x)
    assert (str(model.device), model.training) == ("fake:0", True)
    compare(proto, model.to("cpu").eval(), [x])


def test_what_cannot_be_exported_is_named():
    class Own(nn.Module):
        def forward(self, x):
            return x, None

    with pytest.raises(NotImplementedError, match="Own at '1' has no expression in ONNX"):
        to_onnx(nn.Sequential(nn.ReLU(), Own()), np.zeros((2, 3)))
    with pytest.raises(TypeError, match=r"model in float32.*model\.to"):
        to_onnx(nn.Linear(3, 2, dtype=np.float64), np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"one length along batch_axis=0; got \[2, 3\]"):
        to_onnx(nn.Bilinear(3, 3, 2), np.zeros((2, 3)), np.zeros((3, 3)))
