"""The words around the numbers, in two languages."""

from dataclasses import dataclass
from typing import Any

LANGUAGES = ("en", "zh")

# Under each key English and Chinese. The Chinese headings are those of the classical outline.
HEADINGS = {
    "forward": ("Forward pass", "前向传播"),
    "loss": ("Loss", "计算误差"),
    "backward": ("Backward pass", "反向传播误差"),
    "loss_derivative": ("Derivative of the loss by the output", "损失函数对输出的导数"),
    "local_derivatives": ("Derivatives of the outputs by the weights", "输出对权重的导数"),
    "chain_rule": ("Chain rule", "链式法则"),
    "update": ("Update", "更新权重"),
    "weight_update": ("Weight update", "权重更新"),
    "summary": ("Summary", "总结"),
    # Of the page alone.
    "network": ("The network", "网络"),
    "check": ("Finite differences", "有限差分"),
}
# Of a trained network.
SURVEY_HEADINGS = {
    "layers": ("Layers, from input to output", "各层（从输入到输出）"),
    "parameters": ("Parameters and their gradients", "参数及其梯度"),
    "contributions": ("Largest contributions", "最大的贡献"),
}
# The steps, with the sections that each of them has.
OUTLINE = {
    "forward": ("forward",),
    "loss": ("loss",),
    "backward": ("loss_derivative", "local_derivatives", "chain_rule"),
    "update": ("weight_update",),
}

PHRASES = {
    "local_derivatives": (
        "How each layer's output moves with its own weights and inputs:",
        "每一层的输出随本层权重和输入的变化率：",
    ),
    "chain_rule": (
        "Gradient = gradient from above * local derivative, from the output back to the input:",
        "梯度 = 上游梯度 × 局部导数，从输出逐层传回输入：",
    ),
    "sgd_update": ("w_new = w - eta * dLoss/dw:", "w_new = w - eta * dLoss/dw："),
    "weight_update_other": (
        "Each weight moves against its gradient:",
        "每个权重沿梯度的反方向移动：",
    ),
    "momentum_update": (
        "w_new = w - eta * v_new, where v_new = mu * v + dLoss/dw is the velocity of w:",
        "w_new = w - eta * v_new，其中 v_new = mu * v + dLoss/dw 是 w 的动量：",
    ),
    "adam_update": (
        "m and v are running means of the gradient and of its square; at step t\n"
        "alpha = eta / (1 - beta1^t), c = 1 / sqrt(1 - beta2^t):",
        "m 和 v 是梯度及其平方的滑动平均；在第 t 步\n"
        "alpha = eta / (1 - beta1^t)，c = 1 / sqrt(1 - beta2^t)：",
    ),
    "log_sum": (
        "m is the largest output, and m + s = ln(sum of exp(outputs)):",
        "m 为最大的输出，m + s = ln(各输出的 exp 之和)：",
    ),
    "check": (
        "Compared with (Loss(w + h) - Loss(w - h)) / 2h:",
        "与有限差分 (Loss(w + h) - Loss(w - h)) / 2h 比较：",
    ),
    "column_parameter": ("weight w", "权重 w"),
    "column_above": ("from above", "上游梯度"),
    "column_local": ("local", "局部导数"),
    "column_gradient": ("dLoss/dw", "dLoss/dw"),
    "column_difference": ("difference", "有限差分"),
    "column_relative": ("relative", "相对差"),
    "loss_was": ("Loss {0} -> {1} after the update.", "误差 {0} -> 更新后 {1}。"),
    "loss_is": ("Loss {0}.", "误差 {0}。"),
    "sample_of_run": (
        "Sample {0} of the test part of {1}",
        "{1} 测试集的 {0} 号样本（从 0 计）",
    ),
    "sample_given": ("The sample that was given", "给定的样本"),
    "sample_answers": ("{0}: target {1}, prediction {2}", "{0}：目标 {1}，预测 {2}"),
    "survey_loss": (
        "Loss {0}; all gradients together have the norm {1}.",
        "误差 {0}；全部参数梯度的总范数为 {1}。",
    ),
    "survey_layers": (
        "|output| and |dLoss/doutput| are Euclidean norms. Each line is one operation that ran;",
        "|output| 和 |dLoss/doutput| 为欧几里得范数。每行是实际执行的一次运算，",
    ),
    "survey_batch": (
        "the first number of a shape is the batch of one sample.",
        "形状的第一个数是批量大小（这里只有一个样本）。",
    ),
    "survey_contributions_1": (
        "output * dLoss/doutput: by how much, to first order, the loss would fall if this element",
        "output * dLoss/doutput：若该元素变为 0，误差（按一阶近似）减小的量。",
    ),
    "survey_contributions_2": (
        "became 0. Below it what the layer's inputs contribute to the first of these elements:",
        "其下是本层各输入对第一个元素的贡献：输入乘以该元素对它的导数；",
    ),
    "survey_contributions_3": (
        "input * derivative of the element by it; for a linear map these add up to the element",
        "对线性映射，各项之和就是该元素减去偏置。",
    ),
    "survey_contributions_4": (
        "without its bias. Indices count from 0, as in NumPy; the first is the sample.",
        "下标从 0 开始，与 NumPy 相同；第一个下标是样本。",
    ),
    "survey_terms": (
        "The largest of the {1} terms of output{0}, whose sum is {2}:",
        "output{0} 共 {1} 项（总和 {2}），其中最大的几项：",
    ),
    "column_layer": ("layer", "层"),
    "column_type": ("type", "类型"),
    "column_input": ("input", "输入"),
    "column_output": ("output", "输出"),
    "column_name": ("parameter", "参数"),
    "column_shape": ("shape", "形状"),
    "whole_network": ("(the network)", "（整个网络）"),
    "agreement": (
        "{0} gradients; the largest relative difference from finite differences is {1}.",
        "共 {0} 个梯度；与有限差分的最大相对差为 {1}。",
    ),
    # Of the page alone.
    "page_title": ("Backpropagation with its real numbers", "看得见真实数字的反向传播"),
    "page_step": ("Training step {0}", "第 {0} 个训练步"),
    "page_network": (
        "Each row is a number with its name. The rows of a card belong to a unit, those before it "
        "to the weights that lead there. A line is as thick as its number is large, and dashed "
        "where the number is negative.",
        "每一行是一个带名称的数：卡片里的属于该单元，卡片左边的属于通向它的权重。"
        "线越粗，数的绝对值越大；虚线表示负数。",
    ),
    "page_value": ("value, going forward", "数值（前向）"),
    "page_gradient": ("dLoss/d of it, going backward", "误差对它的导数（反向）"),
    "page_new": ("after the update", "更新后"),
    "page_figure": ("Network with {0} units, and its numbers", "含 {0} 个单元的网络及其数值"),
    "page_slider": ("Frame", "帧"),
    "page_keys": ("The arrow keys ← and → move it too.", "也可以用方向键 ← 和 → 移动。"),
    "page_previous": ("Previous", "上一步"),
    "page_next": ("Next", "下一步"),
    "page_all": ("Show all", "全部显示"),
}

NOTES = {
    "saturated": (
        "{0} = {1}: saturated; with the derivative {2} little or no gradient passes.",
        "{0} = {1}：已饱和，导数为 {2}，几乎没有梯度通过。",
    ),
    "off": (
        "{0} = 0: the unit is off, its derivative is 0 and its weights get no gradient.",
        "{0} = 0：该单元未激活，导数为 0，其权重得不到梯度。",
    ),
    "not_finite": (
        "{0} = {1}: beyond what the number format can hold; what depends on it means nothing.",
        "{0} = {1}：超出数值格式的范围；依赖它的结果没有意义。",
    ),
    "tiny": (
        "{0} = {1}: below the smallest normal number, so digits are lost.",
        "{0} = {1}：小于最小的规格化数，有效数字已丢失。",
    ),
    "rounded_away": (
        "{0}: the change is smaller than the last digit of the weight, which stays as it is.",
        "{0}：变化量小于权重的最后一位有效数字，权重保持不变。",
    ),
    "no_formula": (
        "{0}: the formula {1}, taken literally, gives another number here (an option, or overflow "
        "and rounding that the op avoids); the op's number is shown.",
        "{0}：按字面计算公式 {1} 会得到不同的数（使用了选项，或运算避免了溢出与舍入）；"
        "此处显示运算的实际结果。",
    ),
    "difference": (
        "{0}: the finite difference {1} is far from the gradient {2}: the loss has a kink within "
        "the step h, or moves less than its own last digit.",
        "{0}：有限差分 {1} 与梯度 {2} 相差较大：误差在步长 h 内有折点，"
        "或其变化小于自身的最后一位有效数字。",
    ),
    "one_class": (
        "With one output the softmax is 1 whatever the weights: the loss and all gradients are 0.",
        "只有一个输出时 softmax 恒为 1：误差和所有梯度都是 0。",
    ),
}


@dataclass(frozen=True)
class Note:
    """A remark.

    Attributes
    ----------
    key : str
        One of :data:`NOTES`.
    values : tuple of str
        What it speaks of.
    """

    key: str
    values: tuple[str, ...] = ()

    def text(self, lang: str) -> str:
        """Return the remark in a language."""
        return NOTES[self.key][language_index(lang)].format(*self.values)


def language_index(lang: str) -> int:
    """Return the place of a language in the tables; ValueError for one that is not there."""
    if lang not in LANGUAGES:
        raise ValueError(f"expected lang to be one of {', '.join(LANGUAGES)}; got {lang!r}")
    return LANGUAGES.index(lang)


def heading(key: str, lang: str) -> str:
    """Return a heading."""
    return {**HEADINGS, **SURVEY_HEADINGS}[key][language_index(lang)]


def phrase(key: str, lang: str, *values: Any) -> str:
    """Return a phrase around values."""
    return PHRASES[key][language_index(lang)].format(*values)
