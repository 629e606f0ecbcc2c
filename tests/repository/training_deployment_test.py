"""The files for training on many machines hold: names, flags, TF_CONFIG."""

import pathlib
import re

import yaml
from absl.testing import absltest

from atat_tf.training import machines

_ROOT = pathlib.Path(__file__).parents[2]
_COMPOSE = yaml.safe_load((_ROOT / "training-compose.yaml").read_text())
_KUBERNETES = list(
    yaml.safe_load_all((_ROOT / "training-kubernetes.yaml").read_text())
)
_SERVICES = _COMPOSE["services"]


def _kind(name):
    (found,) = (one for one in _KUBERNETES if one["kind"] == name)
    return found


def _pod():
    return _kind("Job")["spec"]["template"]["spec"]


def _container():
    (container,) = _pod()["containers"]
    return container


class ComposeTest(absltest.TestCase):
    def test_each_worker_is_told_who_it_is(self):
        for number, (name, service) in enumerate(_SERVICES.items()):
            members = machines.from_environment(service["environment"])
            self.assertEqual(members.count, len(_SERVICES))
            self.assertEqual(members.mine, number)
            address = members.tasks[number][2]
            self.assertEqual(address.partition(":")[0], name)

    def test_the_chief_alone_writes(self):
        for number, service in enumerate(_SERVICES.values()):
            self.assertTrue(service["read_only"])
            written = [
                v["target"]
                for v in service["volumes"]
                if not v.get("read_only")
            ]
            self.assertEqual(written, [] if number else ["/app/runs"])

    def test_the_port_is_for_the_workers_alone(self):
        self.assertTrue(_COMPOSE["networks"]["workers"]["internal"])
        for service in _SERVICES.values():
            self.assertNotIn("ports", service)
            self.assertEqual(service["networks"], ["workers"])


class KubernetesTest(absltest.TestCase):
    def test_each_pod_is_told_who_it_is(self):
        """With WORKER_INDEX put in as Kubernetes does: from lines above."""
        job = _kind("Job")
        entries = {entry["name"]: entry for entry in _container()["env"]}
        names = list(entries)
        self.assertLess(names.index("WORKER_INDEX"), names.index("TF_CONFIG"))
        text = entries["TF_CONFIG"]["value"]
        count = job["spec"]["completions"]
        self.assertEqual(job["spec"]["parallelism"], count)
        (port,) = _container()["ports"]
        for number in range(count):
            told = text.replace("$(WORKER_INDEX)", str(number))
            members = machines.from_environment({"TF_CONFIG": told})
            self.assertEqual((members.count, members.mine), (count, number))
            # Pods of an indexed Job are called after it and their index.
            self.assertEqual(
                members.tasks[number][2],
                f"{job['metadata']['name']}-{number}."
                f"{_pod()['subdomain']}:{port['containerPort']}",
            )

    def test_names_meet(self):
        labels = _kind("Job")["spec"]["template"]["metadata"]["labels"]
        self.assertEqual(_kind("Service")["spec"]["selector"], labels)
        policy = _kind("NetworkPolicy")["spec"]
        self.assertEqual(policy["podSelector"]["matchLabels"], labels)
        self.assertEqual(
            _pod()["subdomain"], _kind("Service")["metadata"]["name"]
        )
        # Headless: each pod has an address.
        self.assertEqual(_kind("Service")["spec"]["clusterIP"], "None")
        volumes = {volume["name"] for volume in _pod()["volumes"]}
        mounts = {mount["name"] for mount in _container()["volumeMounts"]}
        self.assertEqual(volumes, mounts)


class FlagsTest(absltest.TestCase):
    def test_both_files_run_the_command_with_known_flags(self):
        """Flags of `train`, and fields of its config."""
        base = (_ROOT / "configs/base.py").read_text()
        source = (_ROOT / "atat_tf/runs/command_line.py").read_text()
        words = [*_container()["args"]]
        for service in _SERVICES.values():
            words += service["command"]
        self.assertGreater(len(words), 8)
        for word in words:
            name = re.fullmatch(r"--([\w.]+)=.+", word)[1]
            if name.startswith("config."):
                self.assertIn(f"{name} = ", base)
            else:
                self.assertIn(f'"{name}"', source)
