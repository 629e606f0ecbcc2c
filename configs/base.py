"""Every field once, with its unit and its reason; recipes change what differs.

A field that is None is chosen by the data set, the attack, or a model that is
given (BY_DATASET and the others below), unless a recipe or the command line has
set it.
"""

import ml_collections
from ml_collections import config_dict


def get_config():
    """Returns the paper's protocol for CIFAR-10 and CIFAR-100, method ATAT."""
    config = ml_collections.ConfigDict()

    config.dataset = "cifar10"
    # Draws weights, order, augmentation and random starts.
    config.seed = 0
    # Draws the validation images; apart from `seed`, so that a teacher and a
    # student of different seeds have seen the same images.
    config.split_seed = 0
    config.num_validation = config_dict.placeholder(int)
    # Pixels to resize to; only for sets whose images differ in size.
    config.image_size = config_dict.placeholder(int)
    # (H, W, C) in its place, where images are not square.
    config.image_shape = config_dict.placeholder(tuple)
    # Whether a mirrored image still shows its class; None: the data set's own.
    config.flip = config_dict.placeholder(bool)
    # "shift" by up to 4 pixels, or "crop_shift" (Li & Spratling 2023). The
    # latter is +1.7 points under AutoAttack in their 200 epochs of a ResNet-18,
    # and costs accuracy in short trainings or small networks, which do not
    # overfit robustly.
    config.augmentation = "shift"
    # An .npz file with arrays "image", uint8 [n, H, W, C], and "label", such as
    # generated images (Wang et al. 2023: +6 points with a million of them), and
    # the share of each batch that comes from it. Its digest is of the content,
    # so that another file does not go on in the run.
    config.extra_images = ""
    config.extra_digest = ""
    config.extra_share = 0.7
    # Image files that cannot be decoded: "stop" at them or "skip" them.
    config.bad_images = "stop"
    # Names of the classes of images of one's own, so that a run can be served
    # and reported where the images are not.
    config.class_names = ()

    # A .keras file to harden: the teacher and the student's start, in the
    # backbone's place. The run folder keeps a copy.
    config.model = ""
    # Of that file, so that another one does not go on in its run.
    config.model_digest = ""
    # What that model takes for black and white. ε is in [0, 1] all the same.
    config.model_range = (0.0, 1.0)
    # HOST:PORT/NAME of a served model that is evaluated by its scores alone, in
    # the backbone's place.
    config.server = ""
    # Whether layers that the file has frozen are trained as well.
    config.unfreeze = False

    config.backbone = ml_collections.ConfigDict()
    # Of runs.build.BACKBONES, or keras:NAME of keras.applications.
    config.backbone.name = "wide_resnet"
    config.backbone.depth = config_dict.placeholder(int)
    config.backbone.width = config_dict.placeholder(int)

    config.defense = ml_collections.ConfigDict()
    config.defense.name = "atat"
    # λ1 and λ2 are not printed in the paper; its ablation switches 0 and 1.
    config.defense.attention_weight = 1.0
    config.defense.logit_weight = 1.0
    # Share of clean images in L_ce; 0.5 is the mean over the mixture (§3.3).
    config.defense.clean_weight = 0.5
    # The topmost map with spatial extent (§3.2): "features" of a backbone,
    # "deepest" of a saved model.
    config.defense.layers = config_dict.placeholder(tuple)
    # What the paper has not; the values here are the paper's. docs/results.md
    # says what each is worth, "Our setting".
    # The class score that maps explain: "logit" (y^c), "centred" (less the
    # mean of all logits) or "margin" (less the largest other).
    config.defense.score = "logit"
    # Distance of maps: "norm" (Eq. 4), "cosine" (place without size) or "rms"
    # (over positions, so that λ1 does not depend on the size of the maps).
    config.defense.map_distance = "norm"
    # Of clean and adversarial logits: "norm" (Eq. 6), "mse" (half the mean
    # square, Kannan et al. 2018) or "kl" (as in TRADES).
    config.defense.pairing = "norm"
    # Maps of the "true" class, or of "two": the strongest other as well.
    config.defense.classes = "true"
    # Weight of KL to the teacher's logits, for a robust --teacher.
    config.defense.distillation = 0.0
    # Of the labels in L_ce: 0.1 is what long recipes take.
    config.defense.label_smoothing = 0.0
    # (warm-up, decay), shares of the training over which λ rises from 0 and
    # falls to 0.
    config.defense.attention_schedule = (0.0, 0.0)
    config.defense.logit_schedule = (0.0, 0.0)

    # §4.1: 7 steps of 2/255 within 8/255, pixels in [0, 1]. Validation, which
    # chooses the best epoch, is under this PGD whatever trains; columns of
    # the evaluation have its radius and step.
    config.attack = ml_collections.ConfigDict()
    # What trains: "pgd"; "trades" (PGD away from the clean prediction, from
    # normal noise); "fgsm_rs" (one step of 1.25 ε) or "n_fgsm" (one step of ε
    # from noise in 2 ε), a seventh of the cost of PGD(7) in the attack.
    config.attack.name = "pgd"
    config.attack.epsilon = 8 / 255
    config.attack.step_size = 2 / 255
    config.attack.num_steps = 7
    config.attack.random_start = True

    # Madry et al. 2018: batch 128, momentum 0.9. The global batch, over all
    # replicas.
    config.batch_size = config_dict.placeholder(int)
    # The paper prints no number of epochs. 100 with drops at 75 % and 90 % is
    # what TRADES trains WRN-34-10 for; longer overfits the attack (Rice et
    # al. 2020), and the best checkpoint is chosen on validation anyway.
    config.num_epochs = config_dict.placeholder(int)
    config.optimizer = ml_collections.ConfigDict()
    config.optimizer.learning_rate = config_dict.placeholder(float)
    config.optimizer.momentum = 0.9
    # "piecewise": × decay_factor at each of decay_at (shares of the run);
    # "cosine": to zero at the end; "one_cycle": linearly from 0 to
    # learning_rate over the share peak_at, and linearly to 0 (Wong et al.
    # 2020), for up to some 30 epochs.
    config.optimizer.schedule = "piecewise"
    config.optimizer.peak_at = 0.4
    config.optimizer.decay_at = (0.75, 0.9)
    config.optimizer.decay_factor = 0.1
    # ½ · weight_decay · ‖w‖² on kernels, as the released code has it.
    config.optimizer.weight_decay = 2e-4
    # Momentum of an average of the weights over steps; 0 keeps none.
    config.optimizer.ema = 0.0
    # Batch-norm statistics that go with the averaged weights: the "last" ones,
    # or "averaged" as the weights are.
    config.optimizer.ema_statistics = "last"

    # γ of adversarial weight perturbation (Wu et al. 2020), 0.01 in the paper
    # and 0.005 beside TRADES; on one device. Behind plain adversarial training
    # up to about epoch 15, 2.6 to 10 points ahead at 200. 0: none.
    config.weight_perturbation = 0.0

    # What to do when validation accuracy under PGD falls, from one epoch to
    # the next, below guard_share of the best so far: "stop" with an error,
    # "rollback" to the best weights and end there, or nothing ("off"). None:
    # chosen by the attack (BY_ATTACK below).
    config.guard = config_dict.placeholder(str)
    # Robust overfitting takes about 15 % of the best, over many epochs (53 to
    # 46, Rice et al. 2020); catastrophic overfitting all but everything, in
    # one (Wong et al. 2020). Half lies between.
    config.guard_share = 0.5

    # A run folder; empty: the teacher is trained first, into workdir/teacher.
    config.teacher = ""
    # Above 0 the teacher moves: after each step it is this share of itself and
    # the rest of the student, so that it becomes the student's own running
    # average (a mean teacher, Tarvainen & Valpola 2017); on one device.
    config.teacher_momentum = 0.0
    # How that teacher is trained: the standard recipe on the same backbone.
    config.teacher_num_epochs = config_dict.placeholder(int)
    config.teacher_learning_rate = config_dict.placeholder(float)
    # Where the student starts: the "teacher"'s weights (§3.2) or "random" ones.
    config.student_start = "teacher"

    # "float32" or "mixed_bfloat16"; losses are in float32 either way.
    config.precision = "float32"
    # Batch statistics over all replicas, or each replica its own.
    config.sync_batch_norm = False
    # Memory: a batch goes through the networks in N equal parts, one after the
    # other, and the weights move by the mean of their gradients. Batch-norm
    # statistics are then those of each part. On one device; 0: the batch whole.
    config.gradient_accumulation_steps = 0
    # A checkpoint every N steps besides every epoch's; 0: none.
    config.checkpoint_every_steps = 200
    # Validation images whose attention, clean and attacked, TensorBoard shows
    # after every epoch; their mean attention shift is recorded. 0: none. Eight
    # cost less than one step and fill a screen.
    config.attention_panels = 8

    config.evaluation = ml_collections.ConfigDict()
    # Columns of the table: Table 1's for cifar10, Table 2's for cifar100.
    config.evaluation.attacks = config_dict.placeholder(tuple)
    config.evaluation.batch_size = 100
    # "best" by validation, "last", or "ema", the average.
    config.evaluation.weights = "best"
    # "test", or "validation" while something is being chosen.
    config.evaluation.split = "test"

    return config.lock()


def with_defense(defense, others=()):
    """Returns every field, for another defense, whose student starts anew.

    Args:
      defense: {field: value} of its section.
      others: {SECTION.FIELD: value} beside it.
    """
    config = get_config()
    config.unlock()
    config.defense = ml_collections.ConfigDict(defense)
    config.student_start = "random"
    config.update_from_flattened_dict(dict(others))
    return config.lock()


_CIFAR = {
    "backbone.depth": 34,
    "backbone.width": 10,
    "batch_size": 128,
    "num_epochs": 100,
    "teacher_num_epochs": 100,
    "optimizer.learning_rate": 0.1,
    "teacher_learning_rate": 0.1,
    "evaluation.attacks": ("clean", "fgsm", "ifgsm20", "pgd7", "pgd20"),
}

# What None means for each data set; "" is any that is not named.
BY_DATASET = {
    "cifar10": _CIFAR,
    "cifar100": {
        **_CIFAR,
        "evaluation.attacks": ("clean", "fgsm", "ifgsm20", "pgd10", "pgd20"),
    },
    # 1,277 small training images: a network and epochs that two cores carry.
    "digits": {
        **_CIFAR,
        "backbone.depth": 10,
        "backbone.width": 1,
        "batch_size": 32,
        "num_epochs": 6,
        "optimizer.learning_rate": 0.03,
        # At ten times the rate standard training alone withstands ε = 8/255
        # on most of these images: thick strokes, white on black.
        "teacher_num_epochs": 8,
        "teacher_learning_rate": 0.01,
    },
    # A person's own images: fewer than CIFAR's, mostly.
    "folder": {**_CIFAR, "batch_size": 32},
    "": _CIFAR,
}

# What None means for each training attack; "" is any that is not named. Only
# one-step attacks are known to collapse.
BY_ATTACK = {
    "fgsm_rs": {"guard": "stop"},
    "n_fgsm": {"guard": "stop"},
    "": {"guard": "off"},
}

# What None means where a saved model is hardened, on any data set: it is
# trained already, and networks without batch norm bear no rate of 0.1.
FOR_MODEL = {
    "batch_size": 32,
    "num_epochs": 20,
    "optimizer.learning_rate": 0.01,
}

# What None means where a served model is evaluated: scores have no gradient.
FOR_SERVER = {"evaluation.attacks": ("clean", "square")}
