"""From recipes to objects: what is filled in, what is refused."""

import importlib

import keras
import numpy as np
import pytest

from atat_tf.attacks import for_training, linf
from atat_tf.data import datasets
from atat_tf.defenses import atat, compared
from atat_tf.errors import InputError
from atat_tf.runs import build, checks
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder
from atat_tf.training import build as training_build
from configs import base, ours, reference, small
from tests.support import runs

# {recipe: its defense}
_RECIPES = {
    "standard": "standard",
    "at": "at",
    "madry": "at",
    "alp": "alp",
    "tla": "tla",
    "trades": "trades",
    "atat": "atat",
    "fast": "atat",
    "released_cifar10": "released_cifar10",
    "released_cifar100": "released_cifar100",
}
_PGD_7 = linf.LinfAttack(8 / 255, 2 / 255, 7)


def _recipe(method, dataset="cifar10"):
    values = importlib.import_module(f"configs.{method}").get_config()
    values.dataset = dataset
    return run_config.resolve(values)


def _config(**overrides):
    values = base.get_config()
    overrides = {k.replace("__", "."): v for k, v in overrides.items()}
    values.update_from_flattened_dict(overrides)
    return run_config.resolve(values)


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "digits"])
@pytest.mark.parametrize("method", _RECIPES)
def test_every_recipe_is_valid_on_every_data_set(method, dataset):
    config = _recipe(method, dataset)
    checks.validate(config)
    expected = atat.DEFENSES[_RECIPES[method]]
    assert isinstance(build.build_defense(config), expected)


@pytest.mark.parametrize("method", _RECIPES)
def test_every_recipe_has_a_small_one(method):
    config = run_config.resolve(small.get_config(method))
    checks.validate(config)
    assert config.defense.name == _RECIPES[method]
    assert config.backbone.depth == 10


@pytest.mark.parametrize("variant", ours.DEFENSES)
def test_variants_of_our_setting(variant):
    config = run_config.resolve(ours.get_config(variant))
    checks.validate(config)
    # The test images are for what has been chosen.
    assert config.evaluation.split == "validation"
    assert config.num_validation == 5000
    defense = build.build_defense(config)
    for field, value in ours.DEFENSES[variant].items():
        assert field == "name" or getattr(defense, field) == value


@pytest.mark.parametrize("name, width", [("reference", 2), ("small", 1)])
def test_the_reference_takes_its_averaged_weights_at_the_end(name, width):
    config = run_config.resolve(reference.get_config(name))
    checks.validate(config)
    assert config.backbone.width == width
    assert config.evaluation.weights == "ema"
    assert not run_config.needs_teacher(config)


@pytest.mark.parametrize("method", ["standard", "alp", "atat"])
def test_an_archived_run_is_what_its_recipe_says(method):
    """Fields that it lacks have the values that it was trained with."""
    there = run_config.read(runs.ROOT / f"results/small/cifar10/{method}/seed0")
    here = run_config.resolve(small.get_config(method))
    differing = run_config.differences(
        run_config.to_dict(here), run_config.to_dict(there)
    )
    # What tables set, and nothing else.
    assert not [d for d in differing if not d.startswith("teacher=")]


def test_every_defense_has_a_recipe():
    assert {*atat.DEFENSES} == {*_RECIPES.values()}
    with pytest.raises(ValueError, match="Received: 'aat'"):
        small.get_config("aat")


@pytest.mark.parametrize(
    "method, expected",
    [
        ("madry", atat.AdversarialTraining(clean_weight=0)),
        ("trades", compared.TRADES(robust_weight=6)),
        ("tla", compared.TLA(2.0, 1e-3, 0.03, 0.0, layers="features")),
        ("fast", atat.ATAT(1, 1, layers="features")),
    ],
)
def test_what_recipes_say(method, expected):
    assert build.build_defense(_recipe(method)) == expected


@pytest.mark.parametrize("method", ["released_cifar10", "released_cifar100"])
def test_the_released_codes_protocol(method):
    """Its network, a teacher, and a student from random weights."""
    config = _recipe(method)
    assert config.backbone.name == "madry_wide_resnet"
    assert config.student_start == "random"
    assert run_config.needs_teacher(config)
    assert run_config.teacher_config(config).backbone == config.backbone


def test_the_papers_protocol():
    """§4.1, and λ1 = λ2 = 1."""
    config = _config()
    assert build.build_attack(config) == _PGD_7
    assert build.build_defense(config) == atat.ATAT(1, 1, layers="features")
    assert (config.backbone.depth, config.backbone.width) == (34, 10)
    assert (config.batch_size, config.optimizer.momentum) == (128, 0.9)
    assert config.optimizer.weight_decay == 2e-4
    for dataset, steps in (("cifar10", 7), ("cifar100", 10)):
        columns = build.build_columns(_config(dataset=dataset))
        names = ["clean", "fgsm", "ifgsm20", f"pgd{steps}", "pgd20"]
        assert [*columns] == names


def test_what_is_set_is_kept():
    config = _config(dataset="digits", num_epochs=3)
    assert (config.num_epochs, config.backbone.depth) == (3, 10)


def test_json_round_trip():
    config = _config()
    values = run_config.to_dict(config)
    there = run_config.from_dict(values)
    assert run_config.to_dict(there) == values
    assert build.build_defense(there) == build.build_defense(config)
    # A run of an earlier version lacks a field, or one of a section.
    del values["flip"], values["attack"]["name"]
    older = run_config.from_dict(values)
    assert run_config.to_dict(older) == run_config.to_dict(config)


def test_differences_name_fields_by_their_path():
    here = {"a": 1, "b": {"c": [1], "d": 2}}
    there = {"a": 1, "b": {"c": [3], "d": 2}, "e": None}
    lines = run_config.differences(here, there)
    assert lines == ["b.c=[1] here, [3] there"]


@pytest.mark.parametrize("dataset", ["cifar10", "digits"])
def test_the_teacher_is_what_the_standard_recipe_trains(dataset):
    teacher = run_config.teacher_config(_config(dataset=dataset))
    assert not run_config.needs_teacher(teacher)
    standard = run_config.to_dict(_recipe("standard", dataset))
    assert run_config.to_dict(teacher) == standard


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"seed": -1}, r"seed in \[0, 2"),
        ({"batch_size": 0}, "batch_size >= 1"),
        ({"num_epochs": 0}, "num_epochs >= 1"),
        ({"checkpoint_every_steps": -1}, "checkpoint_every_steps >= 0"),
        ({"attention_panels": -1}, "attention_panels >= 0"),
        ({"student_start": "teachr"}, "Did you mean 'teacher'"),
        ({"augmentation": "crop"}, "augmentation among crop_shift, shift"),
        ({"extra_images": "no.npz"}, "an .npz file of extra images"),
        ({"precision": "float16"}, "precision among float32, mixed_bfloat16"),
        ({"optimizer__schedule": "step"}, "among cosine, one_cycle, piecewise"),
        ({"optimizer__peak_at": 1.0}, r"peak_at in \(0, 1\)"),
        ({"optimizer__ema_statistics": "averaged"}, "ema > 0.*statistics"),
        ({"evaluation__weights": "ema"}, "ema > 0.*averaged weights"),
        ({"evaluation__split": "train"}, "split among test, validation"),
        ({"optimizer__learning_rate": 0.0}, "learning_rate > 0"),
        ({"optimizer__momentum": 1.0}, r"momentum in \[0, 1\)"),
        ({"optimizer__ema": 1.5}, r"ema in \[0, 1\)"),
        ({"optimizer__decay_at": (0.9, 0.75)}, "decay_at as ascending"),
        ({"attack__epsilon": 8.0}, r"epsilon in \(0, 1\]"),
        ({"weight_perturbation": 1.0}, r"weight_perturbation in \[0, 1\)"),
        (
            {"weight_perturbation": 0.01, "gradient_accumulation_steps": 2},
            "weight_perturbation=0 with gradient accumulation",
        ),
        ({"teacher_momentum": 1.0}, r"teacher_momentum in \[0, 1\)"),
        (
            {"teacher_momentum": 0.9, "gradient_accumulation_steps": 2},
            "teacher_momentum=0 with gradient accumulation",
        ),
        ({"guard": "halt"}, "guard among off, rollback, stop"),
        ({"guard_share": 1.0}, r"guard_share in \(0, 1\)"),
        ({"attack__name": "pdg"}, "a training attack.*Did you mean 'pgd'"),
        (
            {"attack__name": "n_fgsm", "attack__num_steps": 1},
            "num_steps > 1.*validates n_fgsm",
        ),
        (
            {"attack__name": "fgsm_rs", "attack__random_start": False},
            "random_start=True, as fgsm_rs",
        ),
        ({"evaluation__attacks": ("pdg20",)}, "Did you mean 'pgd20'"),
        ({"evaluation__attacks": ()}, "at least one attack"),
        ({"defense__name": "atta"}, "Did you mean 'atat'"),
        ({"defense__name": "at"}, "a field of AdversarialTraining among clean"),
        ({"defense__score": "centered"}, "Did you mean 'centred'"),
        ({"backbone__name": "wide_resent"}, "Did you mean 'wide_resnet'"),
        ({"backbone__depth": 29}, "6n .* Received: depth=29"),
        ({"dataset": "cifar1O"}, "Received: 'cifar1O'"),
    ],
    ids=str,
)
def test_refuses(overrides, message):
    with pytest.raises(InputError, match=message):
        checks.validate(_config(**overrides))


def test_a_teacher_of_other_classes_is_told_by_their_names(tmp_path):
    config = _config(dataset="digits").unlock()
    config.class_names = ("cat", "dog", "frog")
    config.teacher = str(tmp_path)
    config.lock()
    run_folder.write_json(
        tmp_path / "config.json",
        run_config.to_dict(config) | {"class_names": ["cat", "dog"]},
    )
    with pytest.raises(InputError, match='"frog". here, ."cat", "dog". there'):
        checks.expect_fitting_teacher(config, tmp_path)


def test_a_teacher_of_images_of_another_size_is_refused(tmp_path):
    config = _config(dataset="digits").unlock()
    config.image_size, config.teacher = 32, str(tmp_path)
    config.lock()
    there = run_config.to_dict(config)
    for shape, message in (
        ({"image_size": 16}, "image_size"),
        ({"image_size": None, "image_shape": [32, 32, 3]}, "weights.h5"),
    ):
        run_folder.write_json(tmp_path / "config.json", there | shape)
        with pytest.raises(InputError, match=message):
            checks.expect_fitting_teacher(config, tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.03, 1.0])
def test_refuses_a_share_that_takes_no_extra_image(tmp_path, share):
    path = tmp_path / "extra.npz"
    np.savez(path, image=np.zeros((4, 32, 32, 3), np.uint8), label=[0, 1, 2, 3])
    fields = {"extra_images": str(path), "batch_size": 32}
    checks.validate(_config(**fields, extra_share=1 / 32))
    with pytest.raises(InputError, match=r"extra_share in \[1/32, 1\)"):
        checks.validate(_config(**fields, extra_share=share))


@pytest.mark.parametrize(
    "name, attack, guard",
    [
        ("pgd", _PGD_7, "off"),
        ("trades", for_training.KLAttack(8 / 255, 2 / 255, 7), "off"),
        ("fgsm_rs", linf.LinfAttack(8 / 255, 10 / 255, 1), "stop"),
        (
            "n_fgsm",
            for_training.NoiseFGSM(8 / 255, 8 / 255, 1, noise=2.0),
            "stop",
        ),
    ],
)
def test_training_attacks(name, attack, guard):
    config = _config(attack__name=name)
    assert build.build_attack(config) == attack
    # Whatever trains, PGD(7) chooses the best epoch.
    assert build.build_validation_attack(config) == _PGD_7
    # And columns keep the config's step.
    ((column,),) = build.build_columns(config, ["pgd20"]).values()
    assert column.attack == linf.pgd(8 / 255, 2 / 255, 20)
    # One-step attacks are guarded, unless the config says how.
    assert config.guard == guard
    chosen = _config(attack__name=name, guard="rollback")
    assert chosen.guard == "rollback"
    teacher = run_config.teacher_config(chosen)
    assert (teacher.guard, teacher.attack.name) == ("off", "pgd")


@pytest.mark.parametrize("name", ["pgd", "fgsm_rs", "n_fgsm"])
def test_trades_is_refused_another_attack(name):
    config = _recipe("trades").copy_and_resolve_references()
    config.attack.name = name
    with pytest.raises(InputError, match="maximises kl_divergence for TRADES"):
        checks.validate(config)


def test_nothing_to_guard():
    config = _recipe("standard").copy_and_resolve_references()
    config.guard = "stop"
    with pytest.raises(InputError, match="guard=off for a defense"):
        checks.validate(config)


@pytest.mark.parametrize(
    "schedule, rates",
    [
        # 0.1 until 75 % of 2 epochs × 10 steps, then 0.01, from 90 % 0.001.
        ("piecewise", {0: 0.1, 15: 0.1, 16: 0.01, 18: 0.01, 19: 0.001}),
        # cos from 0.1 to 0: half way ½ · 0.1.
        ("cosine", {0: 0.1, 10: 0.05, 20: 0.0}),
        # 0 to 0.1 over the first 8 of 20 steps, and back to 0.
        ("one_cycle", {0: 0, 4: 0.05, 8: 0.1, 14: 0.05, 20: 0, 21: 0}),
    ],
)
def test_schedules(schedule, rates):
    config = _config(num_epochs=2, optimizer__schedule=schedule)
    optimizer = training_build.build_optimizer(config, 10)
    for step, rate in rates.items():
        optimizer.iterations.assign(step)
        found = float(optimizer.learning_rate)
        np.testing.assert_allclose(found, rate, rtol=1e-5, atol=1e-9)


def test_a_schedule_goes_by_updates_where_parts_of_batches_are_added_up():
    config = _config(
        num_epochs=2,
        optimizer__schedule="one_cycle",
        gradient_accumulation_steps=2,
    )
    optimizer = training_build.build_optimizer(config, 10)
    variable = keras.Variable([0.0])
    optimizer.build([variable])
    found = []
    for _ in range(40):
        optimizer.apply([keras.ops.ones(1)], [variable])
        found.append(float(optimizer.learning_rate))
    rates = {4: 0.05, 8: 0.1, 14: 0.05, 20: 0}
    for update, rate in rates.items():
        np.testing.assert_allclose(found[2 * update - 1], rate, atol=1e-6)


def test_a_recipe_need_not_name_all_fields_of_its_defense():
    config = base.with_defense({"name": "at"})
    resolved = run_config.resolve(config)
    assert resolved.defense.clean_weight == 0.5
    written = run_config.to_dict(resolved)
    assert run_config.to_dict(run_config.from_dict(written)) == written


def test_the_layers_of_a_defense_are_those_that_it_acts_on(monkeypatch):
    class Mine(atat.Standard):
        layers = ("hidden",)

    monkeypatch.setitem(atat.DEFENSES, "mine", Mine)
    config = run_config.resolve(base.with_defense({"name": "mine"}))
    assert build.defense_layers(config) == ("hidden",)
    assert build.defense_layers(_config()) == ("features",)
    monkeypatch.delitem(atat.DEFENSES, "mine")
    assert build.defense_layers(config) == ()


def test_one_cycle_is_serialised():
    schedule = training_build.OneCycle.from_config(
        training_build.OneCycle(0.1, 8, 20).get_config()
    )
    np.testing.assert_allclose(schedule(14), 0.05)


def test_classifiers_have_the_settings_of_the_config():
    config = _config(
        dataset="digits", precision="mixed_bfloat16", sync_batch_norm=True
    )
    classifier = build.build_classifier(config, datasets.SPECS["digits"])
    stem = classifier.get_layer("stem")
    # The released code's decay: ½ · 2e-4.
    assert stem.kernel_regularizer.l2 == pytest.approx(1e-4)
    assert stem.dtype_policy.name == "mixed_bfloat16"
    assert keras.config.dtype_policy().name == "float32"
    assert classifier.get_layer("features_norm").synchronized
