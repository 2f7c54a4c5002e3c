"""The rows."""

from optimizer_cases.case import FILLED, MATRICES, OptimizerCase

SGD = [
    OptimizerCase("SGD", "SGD", {}),
    OptimizerCase("SGD with weight decay", "SGD", {"weight_decay": 0.02}),
    OptimizerCase("SGD maximizing", "SGD", {"maximize": True, "weight_decay": 0.02}),
    OptimizerCase("SGD with momentum", "SGD", {"momentum": 0.9}, rate=0.02),
    OptimizerCase(
        "SGD with dampening",
        "SGD",
        {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01},
        rate=0.02,
    ),
    OptimizerCase(
        "SGD with dampening, maximizing",
        "SGD",
        {"momentum": 0.8, "dampening": 0.5, "maximize": True},
        rate=0.1,
    ),
    OptimizerCase("SGD with Nesterov momentum", "SGD", {"momentum": 0.9, "nesterov": True}, 0.02),
    OptimizerCase(
        "SGD with everything",
        "SGD",
        {"momentum": 0.5, "nesterov": True, "weight_decay": 0.1, "maximize": True},
        rate=0.05,
    ),
]

ADAM = [
    OptimizerCase("Adam", "Adam", {}),
    OptimizerCase("Adam with other betas", "Adam", {"betas": (0.7, 0.9), "eps": 1e-3}),
    OptimizerCase("Adam with weight decay", "Adam", {"weight_decay": 0.1}),
    OptimizerCase("Adam with AMSGrad", "Adam", {"amsgrad": True, "betas": (0.9, 0.9)}),
    OptimizerCase(
        "Adam with everything",
        "Adam",
        {"amsgrad": True, "weight_decay": 0.1, "maximize": True, "betas": (0.5, 0.8)},
    ),
    OptimizerCase("Adam without running means", "Adam", {"betas": (0.0, 0.0), "eps": 0.1}),
    OptimizerCase("Adam, decoupled", "Adam", {"weight_decay": 0.2, "decoupled_weight_decay": True}),
    OptimizerCase("AdamW", "AdamW", {}),
    OptimizerCase("AdamW with AMSGrad", "AdamW", {"amsgrad": True, "weight_decay": 0.5}),
    OptimizerCase("AdamW maximizing", "AdamW", {"maximize": True, "weight_decay": 0.3}),
    OptimizerCase("AdamW without weight decay", "AdamW", {"weight_decay": 0.0}),
    OptimizerCase("NAdam", "NAdam", {}),
    OptimizerCase("NAdam with weight decay", "NAdam", {"weight_decay": 0.1}),
    OptimizerCase(
        "NAdam, decoupled, maximizing",
        "NAdam",
        {
            "weight_decay": 0.2,
            "decoupled_weight_decay": True,
            "maximize": True,
            "momentum_decay": 0.3,
            "betas": (0.8, 0.95),
        },
    ),
    OptimizerCase("RAdam", "RAdam", {}, steps=600),
    OptimizerCase("RAdam never rectified", "RAdam", {"betas": (0.5, 0.6), "weight_decay": 0.1}),
    OptimizerCase(
        "RAdam, decoupled, maximizing",
        "RAdam",
        {
            "weight_decay": 0.2,
            "decoupled_weight_decay": True,
            "maximize": True,
            "betas": (0.8, 0.9),
            "eps": 1e-3,
        },
    ),
    OptimizerCase("Adamax", "Adamax", {}),
    OptimizerCase(
        "Adamax with everything",
        "Adamax",
        {"betas": (0.5, 0.8), "eps": 1e-2, "weight_decay": 0.1, "maximize": True},
    ),
]

SCALED = [
    OptimizerCase("Adadelta", "Adadelta", {}, rate=20.0),
    OptimizerCase(
        "Adadelta with everything",
        "Adadelta",
        {"rho": 0.7, "eps": 1e-3, "weight_decay": 0.1, "maximize": True},
        rate=0.5,
    ),
    OptimizerCase("Adagrad", "Adagrad", {}, rate=0.5),
    OptimizerCase(
        "Adagrad with a decaying rate",
        "Adagrad",
        {"lr_decay": 0.01, "initial_accumulator_value": 0.3, "weight_decay": 0.1},
        rate=0.8,
    ),
    OptimizerCase("Adagrad maximizing", "Adagrad", {"maximize": True, "eps": 1e-2}, rate=0.5),
    OptimizerCase("RMSprop", "RMSprop", {}, rate=0.02),
    OptimizerCase("RMSprop with momentum", "RMSprop", {"momentum": 0.9}, rate=0.003),
    OptimizerCase("RMSprop, centered", "RMSprop", {"centered": True, "eps": 1e-2}, rate=0.01),
    OptimizerCase(
        "RMSprop with everything",
        "RMSprop",
        {
            "momentum": 0.5,
            "centered": True,
            "alpha": 0.8,
            "eps": 1e-2,
            "weight_decay": 0.1,
            "maximize": True,
        },
        rate=0.01,
    ),
    OptimizerCase("Adafactor", "Adafactor", {}, rate=0.5, steps=600, shapes=FILLED),
    OptimizerCase(
        "Adafactor with everything",
        "Adafactor",
        {"beta2_decay": -0.5, "eps": (1e-2, 0.1), "d": 2.0, "weight_decay": 0.2, "maximize": True},
        rate=0.5,
        steps=600,
        shapes=FILLED,
    ),
]

OTHERS = [
    OptimizerCase("Rprop", "Rprop", {}),
    OptimizerCase(
        "Rprop with bounds", "Rprop", {"etas": (0.3, 1.5), "step_sizes": (0.01, 0.06)}, steps=100
    ),
    OptimizerCase("Rprop maximizing", "Rprop", {"maximize": True}),
    OptimizerCase("ASGD", "ASGD", {}),
    OptimizerCase("ASGD that averages", "ASGD", {"lambd": 0.02, "alpha": 0.5, "t0": 5}),
    OptimizerCase("ASGD maximizing", "ASGD", {"maximize": True, "weight_decay": 0.1, "t0": 0}),
    OptimizerCase("Muon", "Muon", {}, rate=0.03, shapes=MATRICES),
    OptimizerCase(
        "Muon for the learning rate of AdamW",
        "Muon",
        {"nesterov": False, "momentum": 0.5, "adjust_lr_fn": "match_rms_adamw", "weight_decay": 0},
        rate=0.1,
        shapes=MATRICES,
    ),
    OptimizerCase(
        "Muon with other coefficients",
        "Muon",
        {
            "ns_coefficients": (2.0, -1.5, 0.5),
            "ns_steps": 3,
            "eps": 0.5,
            "adjust_lr_fn": "original",
        },
        rate=0.03,
        shapes=MATRICES,
    ),
    OptimizerCase("Lion", "Lion", {}, rate=0.05),
    OptimizerCase(
        "Lion with everything",
        "Lion",
        {"betas": (0.5, 0.8), "weight_decay": 0.3, "maximize": True},
        rate=0.05,
    ),
]

OPTIMIZERS = [*SGD, *ADAM, *SCALED, *OTHERS]
