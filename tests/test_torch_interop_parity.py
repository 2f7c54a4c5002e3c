"""What goes to PyTorch and comes from it: states, modules, and our layers under its gradcheck.

No test names a layer where every row of the table is meant. `nox -s torch_parity` runs these.
"""

import copy
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from layer_cases import CASES, Case
from needs_torch import import_torch

import xbackprop as xb
from xbackprop import nn
from xbackprop.interop.torch import (
    as_torch_function,
    from_torch,
    from_torch_state_dict,
    to_torch_state_dict,
)
from xbackprop.interop.torch.options import read_options
from xbackprop.testing import TOLERANCES
from xbackprop.testing.structures import BufferSnapshot, leaves, transform

# The names under which the comparisons are counted: they are not one more for each layer.
state_dicts = pytest.mark.torch_parity("interop: state dicts")
converted = pytest.mark.torch_parity("interop: from_torch")
wrapped = pytest.mark.torch_parity("interop: as_torch_function")

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))


@pytest.fixture(scope="module")
def torch() -> Any:
    torch = import_torch()
    torch.manual_seed(0)
    return torch


@pytest.fixture(autouse=True)
def _on_the_cpu() -> Iterator[None]:
    with xb.use_device("cpu"):
        yield


def draw(case: Case, torch: Any, *, requires_grad: bool = False) -> tuple[Any, ...]:
    """The inputs of a row as tensors: floats in float64, in the row's nesting."""

    def as_tensor(leaf: Any) -> Any:
        if not isinstance(leaf, (np.ndarray, np.generic)):
            return leaf
        is_float = leaf.dtype.kind == "f"
        return torch.tensor(np.array(leaf), requires_grad=is_float and requires_grad)

    made = case.inputs(np.random.default_rng(0))
    return transform(made if type(made) is tuple else (made,), as_tensor)


def as_arrays(value: Any) -> Any:
    return transform(value, lambda leaf: leaf.detach().numpy() if hasattr(leaf, "detach") else leaf)


def has_buffers(case: Case) -> bool:
    """Whether a layer has state beside its parameters, and so may compute by its mode."""
    with xb.use_device("cpu"):
        parts = list(case.make().modules())
    kinds = (True, False)
    return any(list(part.own_buffers(persistent=kind)) for part in parts for kind in kinds)


@state_dicts
def test_pytorch_is_imported_only_where_it_is_needed(torch: Any) -> None:
    code = (
        "import sys, xbackprop as xb; layer = xb.nn.Linear(1, 1); "
        "state = xb.interop.torch.to_torch_state_dict(layer); "
        "xb.interop.torch.from_torch_state_dict(layer, state); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- state dicts --------------------------------------------------------------------------


@state_dicts
@every_case
def test_states_load_into_each_other(case: Case, torch: Any) -> None:
    layer, theirs = case.make(), case.torch(torch)
    if case.name.startswith("LazyLinear"):
        layer(*(array.astype(np.float32) for array in as_arrays(draw(case, torch))))
    state = to_torch_state_dict(layer, as_tensors=True)
    assert list(state) == list(theirs.state_dict())
    assert theirs.load_state_dict(state) == ([], [])
    fresh = case.make()
    assert from_torch_state_dict(fresh, theirs.state_dict()) == ([], [])
    for key, array in to_torch_state_dict(fresh).items():
        np.testing.assert_array_equal(array, state[key].numpy(), strict=True)


@state_dicts
def test_the_order_is_that_of_pytorch(torch: Any) -> None:
    def network(library: Any) -> Any:
        parts = library.Sequential(library.BatchNorm1d(2), library.Linear(2, 2))
        return library.Sequential(parts, library.PReLU())

    assert list(to_torch_state_dict(network(nn))) == list(network(torch.nn).state_dict())


@state_dicts
@pytest.mark.parametrize("strict", [True, False])
def test_the_same_keys_are_reported(strict: bool, torch: Any) -> None:
    ours, theirs = nn.Linear(2, 1), torch.nn.Linear(2, 1)
    good = theirs.state_dict()
    for state in ({"weight": good["weight"]}, {**good, "gain": good["bias"]}, {}):
        if strict:
            with pytest.raises(RuntimeError):
                theirs.load_state_dict(state)
            with pytest.raises(ValueError, match=r"missing: (weight, )?bias|unexpected: gain"):
                from_torch_state_dict(ours, state)
        else:
            expected = theirs.load_state_dict(state, strict=False)
            assert from_torch_state_dict(ours, state, strict=False) == tuple(expected)
    mis_shaped = {**good, "weight": torch.ones(2, 1)}
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        theirs.load_state_dict(mis_shaped, strict=strict)
    with pytest.raises(ValueError, match=r"weight has shape \(2, 1\), expected \(1, 2\)"):
        from_torch_state_dict(ours, mis_shaped, strict=strict)


@state_dicts
@pytest.mark.parametrize("version", [None, 1, 2])
def test_old_states_of_batch_norms(version: int | None, torch: Any) -> None:
    ours, theirs = nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    state = theirs.state_dict()
    del state["num_batches_tracked"]
    state._metadata[""]["version"] = version
    # PyTorch puts the count into what it loads, so it gets a copy.
    expected = theirs.load_state_dict(copy.deepcopy(state), strict=False)
    assert from_torch_state_dict(ours, state, strict=False) == tuple(expected)


@state_dicts
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_floats(dtype: str, torch: Any, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = {"weight": torch.randn(2, 3).to(getattr(torch, dtype)).requires_grad_()}
    save_file({"weight": state["weight"].detach()}, tmp_path / "state.safetensors")
    for source in (state, tmp_path / "state.safetensors"):
        layer = nn.Linear(3, 2, bias=False)
        from_torch_state_dict(layer, source)
        np.testing.assert_array_equal(
            layer.weight.data, state["weight"].detach().float().numpy(), strict=True
        )


@state_dicts
def test_tensors_without_values_that_numpy_holds_are_refused_by_name(torch: Any) -> None:
    layer = nn.Linear(3, 2, bias=False)
    for tensor in (
        torch.ones(2, 3).to(torch.float8_e4m3fn),
        torch.ones(2, 3, device="meta"),
        torch.ones(2, 3).to_sparse(),
    ):
        with pytest.raises(TypeError, match=r"weight \(torch\..*\) cannot be read as an array"):
            from_torch_state_dict(layer, {"weight": tensor})
    with pytest.raises(ValueError, match="weight has dtype complex64, expected real numbers"):
        from_torch_state_dict(layer, {"weight": torch.ones(2, 3, dtype=torch.complex64)})


@state_dicts
def test_the_lines_in_the_refusal_of_a_pickle_convert_it(torch: Any, tmp_path: Path) -> None:
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    theirs[1].weight = theirs[0].weight  # safetensors refuses shared memory
    torch.save(theirs.state_dict(), tmp_path / "model.pt")
    ours = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    with pytest.raises(ValueError, match="is a pickle") as refused:
        from_torch_state_dict(ours, tmp_path / "model.pt")
    exec("\n".join(str(refused.value).splitlines()[1:]), {})
    from_torch_state_dict(ours, tmp_path / "model.safetensors")
    for key, array in to_torch_state_dict(ours).items():
        np.testing.assert_array_equal(array, theirs.state_dict()[key].numpy())


# --- from_torch ---------------------------------------------------------------------------


def part_to_convert(module: nn.Module, whole: Any, torch: Any) -> tuple[str, Any]:
    """The path of the first part of a row that PyTorch has a class for, and PyTorch's part.

    That is the row itself, or what a composite of the tests holds in an attribute. Without one, and
    for a network of ours that PyTorch has no class for, the row as PyTorch has it.
    """
    if type(module).__name__ in nn.catalogue() and not hasattr(torch.nn, type(module).__name__):
        return "", whole
    for path, part in module.named_modules():
        parent, _, name = path.rpartition(".")
        cls = getattr(torch.nn, type(part).__name__, None)
        found = next((theirs for theirs in whole.modules() if type(theirs) is cls), None)
        if found is not None and (not path or (not parent and name in vars(module))):
            return path, found
    return "", whole


def run(module: Any, inputs: tuple[Any, ...]) -> Any:
    """Call a module; a dict of modules, which rows have for a Sequential with names, as a chain."""
    if type(module).__name__ != "ModuleDict":
        return module(*inputs)
    (x,) = inputs
    for part in module.values():
        x = part(x)
    return x


@converted
@every_case
def test_rows_as_pytorch_has_them_become_ours(case: Case, torch: Any) -> None:
    ours, whole = case.make(), case.torch(torch).double()
    for part in whole.modules():
        vars(part).pop("forward", None)  # what rows use to keep PyTorch's warnings down
    path, theirs = part_to_convert(ours, whole, torch)
    whole.train(not case.is_random)
    try:
        made = from_torch(theirs)
    except NotImplementedError as refusal:
        assert_is_unknown(theirs, str(refusal), torch)
        return
    assert {part.training for part in made.modules()} == {not case.is_random}
    state = theirs.state_dict()
    for key, array in to_torch_state_dict(made).items():
        np.testing.assert_array_equal(array, state[key].numpy(), strict=True)
    again = nn.from_config(made.config())
    assert again.config() == made.config()
    if path:
        setattr(ours, path, made)
    compare_outputs(ours if path else made, whole, draw(case, torch), torch)


def assert_is_unknown(module: Any, refusal: str, torch: Any) -> None:
    """What is refused is a composite of the tests', or a function."""
    unknown = [
        type(part).__qualname__
        for part in module.modules()
        if getattr(torch.nn, type(part).__name__, None) is not type(part)
        or type(part).__name__ not in nn.catalogue()
    ]
    assert "has no backward" in refusal or any(name in refusal for name in unknown), refusal


def compare_outputs(ours: nn.Module, theirs: Any, inputs: Any, torch: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of even kernels that keep the shape
        expected = list(leaves(run(theirs, labels_as_int64(inputs, torch)), "output"))
    received = list(leaves(run(ours, as_arrays(inputs)), "output"))
    assert len(received) == len(expected)
    for (what, value), (_, tensor) in zip(received, expected, strict=True):
        assert (value is None) == (tensor is None), what
        if value is not None:
            wanted = tensor.detach().numpy()
            assert np.shape(value) == wanted.shape
            scale = max(1.0, np.abs(wanted).max(initial=0.0))
            tolerance = TOLERANCES["float64"].peer * scale
            np.testing.assert_allclose(value, wanted, rtol=0, atol=tolerance, err_msg=what)


def labels_as_int64(inputs: Any, torch: Any) -> Any:
    def widen(leaf: Any) -> Any:
        if not hasattr(leaf, "detach") or leaf.is_floating_point() or leaf.dtype == torch.bool:
            return leaf
        return leaf.long()

    return transform(inputs, widen)


@converted
def test_dtypes_modes_and_frozen_weights_are_carried_over(torch: Any) -> None:
    theirs = torch.nn.Sequential(
        torch.nn.Linear(2, 2).double(), torch.nn.Linear(2, 2), torch.nn.Dropout(0.25)
    )
    theirs[0].weight.requires_grad_(False)
    theirs[2].eval()
    ours = from_torch(theirs, rng=0)
    assert [ours[0].weight.dtype, ours[1].bias.dtype] == ["float64", "float32"]
    frozen = [name for name, value in ours.named_parameters() if not value.requires_grad]
    assert frozen == ["0.weight"]
    assert [part.training for part in ours] == [True, True, False]
    assert ours.training
    theirs[0].weight.data.zero_()  # the values are copies
    assert ours[0].weight.data.any()


@converted
def test_weights_of_a_loss_keep_their_dtype(torch: Any) -> None:
    weight = torch.tensor([0.1, 0.9], dtype=torch.float64)
    loss = from_torch(torch.nn.CrossEntropyLoss(weight.clone()))
    np.testing.assert_array_equal(loss.state_dict()["weight"], weight.numpy(), strict=True)


@converted
def test_shared_layers_and_tied_weights_stay_shared(torch: Any) -> None:
    linear = torch.nn.Linear(3, 3)
    tied = torch.nn.Linear(3, 3)
    tied.weight = linear.weight
    ours = from_torch(torch.nn.Sequential(linear, torch.nn.Sequential(linear, tied)))
    assert ours[0] is ours[1][0]
    assert ours[1][1].weight is ours[0].weight
    assert ours[1][1].bias is not ours[0].bias
    assert [name for name, _ in ours.named_parameters()] == ["0.weight", "0.bias", "1.1.bias"]
    again = nn.from_config(ours.config())
    assert again[1][1].weight is again[0].weight


@converted
def test_a_lazy_layer_stays_lazy(torch: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the layer being new
        theirs = torch.nn.Sequential(torch.nn.LazyLinear(2, dtype=torch.float64))
    ours = from_torch(theirs)
    assert type(ours[0]) is nn.LazyLinear
    assert ours(np.ones((1, 3))).shape == (1, 2)


@converted
@pytest.mark.parametrize("device", ["cpu", "fake", "fake:1"])
def test_the_device_is_chosen(device: str, torch: Any) -> None:
    theirs = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Dropout(), torch.nn.PReLU())
    place = xb.device_of(xb.to_device(np.ones(1), device))
    with xb.use_device(device):
        ours = from_torch(theirs)
        ours.forward(xb.asarray(np.ones((3, 2))))
    also = from_torch(theirs, device=device)
    assert {p.device for p in [*ours.parameters(), *also.parameters()]} == {place}


@converted
def test_the_generator_draws_the_keys(torch: Any) -> None:
    theirs = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout())
    first, second = (from_torch(theirs, rng=3).extra_state() for _ in range(2))
    for key, array in first.items():
        np.testing.assert_array_equal(array, second[key])
    assert not np.array_equal(first["0.random_state"], first["1.random_state"])


class TestOptionsOfTransformers:
    """They are no attributes, but stand in the parts; each must be the same in all."""

    pytestmark = converted
    OPTIONS: ClassVar[dict[str, Any]] = {
        "d_model": 4,
        "nhead": 2,
        "dim_feedforward": 6,
        "dropout": 0.25,
        "activation": "gelu",
        "layer_norm_eps": 1e-3,
        "batch_first": True,
        "norm_first": True,
        "bias": False,
    }

    @pytest.fixture(autouse=True)
    def _quiet(self) -> Iterator[None]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of nested tensors
            yield

    def read(self, module: Any) -> dict[str, Any]:
        return read_options(module, type(module), "", lambda child, _: repr(child))

    @pytest.mark.parametrize("name", ["TransformerEncoderLayer", "TransformerDecoderLayer"])
    def test_of_a_layer(self, name, torch):
        cls = getattr(torch.nn, name)
        assert self.read(cls(**self.OPTIONS)) == self.OPTIONS
        assert self.read(cls(4, 2)) == {
            **dict(d_model=4, nhead=2, dim_feedforward=2048, dropout=0.1, activation="relu"),
            **dict(layer_norm_eps=1e-5, batch_first=False, norm_first=False, bias=True),
        }

    @pytest.mark.parametrize("kind", ["encoder", "decoder"])
    def test_of_a_stack(self, kind, torch):
        layer = getattr(torch.nn, f"Transformer{kind.title()}Layer")(**self.OPTIONS)
        stack = getattr(torch.nn, f"Transformer{kind.title()}")(layer, 2, torch.nn.LayerNorm(4))
        options = self.read(stack)
        assert options[f"{kind}_layer"] == repr(layer)
        assert (options["num_layers"], options["norm"]) == (2, repr(stack.norm))
        stack.layers[1].dropout1.p = 0.5
        with pytest.raises(NotImplementedError, match=rf"layers\.\* differ; ours has one {kind}_"):
            self.read(stack)

    def test_of_the_whole(self, torch):
        model = torch.nn.Transformer(**self.OPTIONS, num_encoder_layers=2, num_decoder_layers=1)
        options = self.read(model)
        assert repr(type(model)(**options)) == repr(model)
        assert options == self.OPTIONS | {"num_encoder_layers": 2, "num_decoder_layers": 1}
        model.decoder.layers[0].norm3.eps = 0.1
        with pytest.raises(NotImplementedError, match="ours has one layer_norm_eps for all"):
            self.read(model)
        model.encoder = torch.nn.Identity()
        with pytest.raises(NotImplementedError, match="num_encoder_layers cannot be read"):
            self.read(model)


@converted
def test_an_option_that_ours_has_not_is_refused_where_it_is_used(torch: Any) -> None:
    class GELU(nn.Module):
        def __init__(self) -> None: ...

    assert read_options(torch.nn.GELU(), GELU, "", lambda child, _: child) == {}
    with pytest.raises(NotImplementedError, match=r"ours has no option approximate; here .*'tanh'"):
        read_options(torch.nn.GELU("tanh"), GELU, "", lambda child, _: child)


class TestRefusals:
    """What would not be the same module is named with its path."""

    pytestmark = converted

    def refuse(self, module: Any, match: str, error: type[Exception] = NotImplementedError) -> None:
        with pytest.raises(error, match=match):
            from_torch(module)

    def test_options_that_we_refuse(self, torch):
        model = torch.nn.Sequential(torch.nn.Sequential(torch.nn.ReLU(inplace=True)))
        self.refuse(model, r"from_torch: 0\.0 \(ReLU\): .*inplace=True")

    def test_classes_of_ones_own(self, torch):
        class Linear(torch.nn.Linear):
            pass

        self.refuse(torch.nn.Sequential(Linear(1, 1)), r"0 is a .*TestRefusals.*Linear, which is")
        self.refuse(torch.nn.Sequential(None), "0 is a builtins.NoneType")

    def test_hooks_and_changed_forwards(self, torch):
        model = torch.nn.Sequential(torch.nn.Linear(1, 1))
        handle = model[0].register_forward_hook(lambda *_: None)
        self.refuse(model, r"0 \(Linear\) has hooks \(_forward_hooks\)")
        handle.remove()
        model.forward = lambda x: x
        self.refuse(model, r"the module \(Sequential\) has a forward of its own")

    def test_options_that_cannot_be_read(self, torch):
        model = torch.nn.LeakyReLU()
        del model.negative_slope
        self.refuse(model, "the option negative_slope cannot be read")

    def test_functions_without_a_backward(self, torch):
        loss = torch.nn.TripletMarginWithDistanceLoss(distance_function=lambda x, y: x)
        self.refuse(loss, "distance_function.*has no backward")

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_half_precision(self, dtype, torch):
        model = torch.nn.Sequential(torch.nn.Linear(1, 1)).to(getattr(torch, dtype))
        self.refuse(model, rf"0\.weight is {dtype}.*module\.float\(\)", TypeError)

    def test_weights_that_share_memory_without_being_one(self, torch):
        model = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1))
        model[1].weight.data = model[0].weight.data
        self.refuse(model, r"0\.weight and 1\.weight share memory")

    def test_values_that_ours_have_not(self, torch):
        model = torch.nn.Linear(1, 1)
        model.register_parameter("gain", torch.nn.Parameter(torch.ones(1)))
        self.refuse(model, "no values called gain")
        model = torch.nn.Linear(2, 1)
        model.weight = torch.nn.Parameter(torch.ones(1, 3))
        self.refuse(model, r"weight has shape \(1, 3\); ours has \(1, 2\)")

    def test_what_is_no_module(self, torch):
        self.refuse(nn.Linear(1, 1), r"expects a torch\.nn\.Module; got Linear", TypeError)
        self.refuse(torch.ones(1), "got Tensor", TypeError)


# --- as_torch_function --------------------------------------------------------------------


@wrapped
@pytest.mark.parametrize(
    ("mode", "case"),
    [
        pytest.param(mode, case, id=f"{mode}-{case.name.replace(' ', '-')}")
        for mode in ("train", "eval")
        for case in CASES
        if mode == "train" or has_buffers(case)
    ],
)
def test_gradcheck(case: Case, mode: str, torch: Any) -> None:
    """Inputs and parameters, each element; random layers repeat their draw."""
    inputs = draw(case, torch, requires_grad=True)
    layer = case.make().to(dtype="float64").train(mode == "train")
    layer(*as_arrays(inputs))  # a lazy layer gets its values
    function, snapshot = as_torch_function(layer), BufferSnapshot(layer)
    tensors = [value for _, value in leaves(inputs, "inputs") if hasattr(value, "detach")]

    def call(*values: Any) -> Any:
        snapshot.restore()
        given = iter(values)
        output = function(
            *transform(inputs, lambda leaf: next(given) if hasattr(leaf, "detach") else leaf)
        )
        return tuple(value for _, value in leaves(output, "output") if hasattr(value, "detach"))

    checked = [*tensors, *function.parameters.values()]
    if not any(tensor.requires_grad and tensor.numel() for tensor in checked):
        for output in call(*tensors):
            assert not output.numel() or not output.requires_grad, "something to differentiate"
        return
    # Where there are many, their sum times random numbers: Conv2d alone would take half a minute.
    is_large = sum(tensor.numel() for tensor in checked if tensor.requires_grad) > 1000
    assert torch.autograd.gradcheck(call, checked, fast_mode=is_large)


@wrapped
def test_parameters_are_shared_and_trained_by_pytorch(torch: Any) -> None:
    layer = nn.Linear(2, 1, rng=0)
    function = as_torch_function(layer)
    optimizer = torch.optim.SGD(function.parameters.values(), lr=0.5)
    x = torch.tensor([[1.0, 2.0]])
    before = layer.weight.data.copy()
    function(x).sum().backward()
    optimizer.step()
    np.testing.assert_array_equal(layer.weight.data, before - 0.5 * x.numpy())
    assert layer.weight.grad is None


@wrapped
def test_the_layers_own_gradients_are_left_as_they_are(torch: Any) -> None:
    layer = nn.Linear(2, 1, rng=0)
    layer.weight.accumulate(np.ones((1, 2), np.float32))
    layer.weight.accumulate(np.ones((1, 2), np.float32))
    layer.bias.requires_grad = False
    function = as_torch_function(layer)
    function(torch.ones(3, 2)).sum().backward()
    np.testing.assert_array_equal(layer.weight.grad, [[2, 2]])
    assert layer.weight.contributions == 2
    assert not layer.bias.requires_grad
    np.testing.assert_array_equal(function.parameters["weight"].grad, [[3, 3]])
    assert function.parameters["bias"].grad is None


@wrapped
def test_a_parameter_that_pytorch_freezes_or_frees(torch: Any) -> None:
    layer = nn.Linear(2, 1, rng=0)
    layer.weight.requires_grad = False
    function = as_torch_function(layer)
    function.parameters["weight"].requires_grad_()
    function.parameters["bias"].requires_grad_(False)
    output = function(torch.ones(3, 2))
    assert layer.weight.requires_grad
    assert not layer.bias.requires_grad
    layer.weight.requires_grad = False  # after a forward it is PyTorch's graph that counts
    output.sum().backward()
    np.testing.assert_array_equal(function.parameters["weight"].grad, [[3, 3]])
    assert function.parameters["bias"].grad is None


@wrapped
def test_a_forward_that_changes_a_parameter(torch: Any) -> None:
    """As an embedding with `max_norm` does: it puts new values into new storage."""

    class Clipped(nn.Module):
        def __init__(self) -> None:
            self.weight = nn.Parameter(np.array([3.0, 0.5]))

        def forward(self, x: Any) -> Any:
            self.weight.rebind(np.minimum(self.weight.data, 1.0))
            return x * self.weight.value, (x, self.weight.value)

        def backward(self, grad_output: Any, saved: Any) -> Any:
            x, weight = saved
            self.weight.accumulate(grad_output * x)
            return grad_output * weight

    layer = Clipped()
    function = as_torch_function(layer)
    weight, x = function.parameters["weight"], torch.tensor([2.0, 2.0], dtype=torch.float64)
    before = torch.sin(weight)  # needs the weight as it is now
    outputs = [function(x) for _ in range(2)]
    np.testing.assert_array_equal(weight.detach(), [1.0, 0.5])
    assert np.shares_memory(layer.weight.data, weight.detach().numpy())
    (outputs[0] + outputs[1]).sum().backward()
    np.testing.assert_array_equal(weight.grad, [4, 4])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        before.sum().backward()


@wrapped
def test_a_function_used_twice(torch: Any) -> None:
    layer = nn.Linear(2, 2, dtype="float64", rng=0)
    function = as_torch_function(layer)
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    tensors = (x, *function.parameters.values())
    assert torch.autograd.gradcheck(lambda x, *_: function(torch.tanh(function(x))), tensors)


@wrapped
def test_several_outputs_of_which_one_is_used(torch: Any) -> None:
    layer = nn.Parallel(nn.Linear(2, 2, rng=0), nn.Linear(2, 3, rng=1))
    function = as_torch_function(layer)
    x = torch.ones(1, 2, requires_grad=True)
    first, second = function(x)
    assert (first.shape, second.shape) == ((1, 2), (1, 3))
    second.sum().backward()
    np.testing.assert_allclose(x.grad, layer[1].weight.data.sum(0, keepdims=True), rtol=1e-6)
    assert not function.parameters["0.weight"].grad.any()


@wrapped
def test_integers_have_no_gradient(torch: Any) -> None:
    function = as_torch_function(nn.MaxPool1d(2, return_indices=True))
    output, indices = function(torch.arange(4.0)[None, None].requires_grad_())
    assert output.requires_grad
    assert not indices.requires_grad
    assert indices.dtype == torch.int64


@wrapped
def test_nobody_elses_memory(torch: Any) -> None:
    """An output or a gradient may be written into: neither is the input's, nor what was saved."""
    x = torch.ones(2, 2, requires_grad=True)
    for layer in (nn.Identity(), nn.ReLU(), nn.Sigmoid()):
        output = as_torch_function(layer)(x)
        expected = torch.autograd.grad(as_torch_function(layer)(x).sum(), x)
        grad_output = torch.ones(2, 2)
        output.detach().mul_(-3)
        (grad,) = torch.autograd.grad(output, x, grad_output)
        torch.testing.assert_close(grad, expected[0])
        grad.mul_(-3)
        np.testing.assert_array_equal(grad_output, np.ones((2, 2)))
        np.testing.assert_array_equal(x.detach(), np.ones((2, 2)))


@wrapped
def test_the_example_of_the_documentation(torch: Any) -> None:
    page = (Path(xb.__file__).parent / "docs" / "interop.md").read_text(encoding="utf-8")
    code = page.partition("```python\n")[2].partition("```")[0]
    *lines, last = code.strip().splitlines()
    names: dict[str, Any] = {}
    exec("\n".join(lines), names)
    assert eval(last, names) is True


class TestWhatPyTorchRefuses:
    pytestmark = wrapped

    @pytest.mark.parametrize("which", ["input", "parameter"])
    def test_changes_between_forward_and_backward(self, which, torch):
        function = as_torch_function(nn.Linear(2, 1))
        x = torch.ones(1, 2)
        output = function(x)
        with torch.no_grad():
            (x if which == "input" else function.parameters["weight"]).mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            output.sum().backward()

    def test_a_second_backward(self, torch):
        output = as_torch_function(nn.Tanh())(torch.ones(2, requires_grad=True)).sum()
        output.backward(retain_graph=True)
        output.backward()
        with pytest.raises(RuntimeError, match="backward through the graph a second time"):
            output.backward()


class TestWhatWeRefuse:
    pytestmark = wrapped

    def test_lazy_layers_and_other_devices(self, torch):
        with pytest.raises(RuntimeError, match=r"weight of a lazy layer has no values yet"):
            as_torch_function(nn.LazyLinear(2))
        with pytest.raises(ValueError, match=r"weight is on fake:0.*layer\.to\('cpu'\)"):
            as_torch_function(nn.Linear(1, 1, device="fake"))

    @pytest.mark.parametrize("tensor", [("bfloat16", "cpu"), ("float32", "meta")], ids=str)
    def test_tensors_that_numpy_cannot_hold(self, tensor, torch):
        dtype, device = tensor
        x = torch.ones(1, dtype=getattr(torch, dtype), device=device)
        with pytest.raises(TypeError, match=f"on the CPU.*got torch.{dtype} on {device}"):
            as_torch_function(nn.Tanh())(x)

    def test_a_parameter_that_has_moved(self, torch):
        layer = nn.Linear(1, 1)
        function = as_torch_function(layer)
        layer.to(dtype="float64")
        with pytest.raises(RuntimeError, match="weight of the layer and its tensor no longer"):
            function(torch.ones(1, dtype=torch.float64))

    def test_second_derivatives(self, torch):
        function = as_torch_function(nn.Sequential(nn.Linear(2, 1, rng=0), nn.Tanh()))
        x = torch.ones(1, 2, requires_grad=True)
        (expected,) = torch.autograd.grad(function(x).sum(), x)
        loss = function(x).sum()
        (grad,) = torch.autograd.grad(loss, x, create_graph=True)
        torch.testing.assert_close(grad, expected, check_stride=False)
        # PyTorch's once_differentiable leaves the second term out where grad_output is a constant.
        with pytest.raises(NotImplementedError, match="second derivatives of Sequential"):
            (loss + grad.square().sum()).backward()
        (grad,) = torch.autograd.grad(function(x).square().sum(), x, create_graph=True)
        with pytest.raises(NotImplementedError, match="second derivatives of Sequential"):
            grad.sum().backward()

    def test_an_option_with_a_gradient(self, torch):
        function = as_torch_function(nn.Tanh())
        with pytest.raises(NotImplementedError, match=r"options\['x'\] requires a gradient"):
            function(x=torch.ones(1, requires_grad=True))

    def test_an_input_whose_gradient_the_layer_does_not_have(self, torch):
        class Masked(nn.Module):
            def forward(self, x: Any, mask: Any) -> Any:
                return x * mask, mask

            def backward(self, grad_output: Any, mask: Any) -> Any:
                return grad_output * mask, None

        x, mask = torch.ones(2, requires_grad=True), torch.ones(2)
        function = as_torch_function(Masked())
        function(x, mask).sum().backward()
        with pytest.raises(NotImplementedError, match=r"Masked has no gradient.*tensor 1"):
            function(x, mask.requires_grad_()).sum().backward()
