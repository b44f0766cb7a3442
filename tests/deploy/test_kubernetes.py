#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""deploy/kubernetes, rendered by kubectl: fields and types are the API's, every reference resolves, and what the
manifests say about fathom is true of fathom.

kubernetes_api.json holds the fields of the types that the manifests use, with their types, as the API reference of
Kubernetes 1.27 lists them. Kinds of the Prometheus operator are not in it."""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "http"))
import yaml  # noqa: E402
from harness import BINARY, ROOT, Server, main, same, test  # noqa: E402

FOLDER = os.path.join(ROOT, "deploy", "kubernetes")
KUBECTL = shutil.which("kubectl")
CUT_SECONDS = 5  # that a drain takes beyond its timeout at most
NAMES = ["base", "overlays/example", "overlays/model-from-image"]
WHOLE = "overlays/example"
IN_CLUSTER = {("Secret", "fathom-api-keys")}  # made by hand: it is secret


def with_kubectl(function):
    if KUBECTL:
        return test(function)

    def skipped():
        pass
    skipped.__name__ = f"{function.__name__} # SKIP kubectl is not installed"
    return test(skipped)


RENDERED = {}


def render(name):
    if name not in RENDERED:
        done = subprocess.run([KUBECTL, "kustomize", os.path.join(FOLDER, name)],
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        RENDERED[name] = list(yaml.safe_load_all(done.stdout))
    return RENDERED[name]


def find(name, kind):
    return [o for o in render(name) if o["kind"] == kind]


def deployment(name):
    (found,) = find(name, "Deployment")
    return found


def pod(name):
    return deployment(name)["spec"]["template"]["spec"]


def container(name):
    (found,) = pod(name)["containers"]
    return found


def labels_match(selector, labels):
    return bool(selector) and selector.items() <= labels.items()


# ---- the API ----

with open(os.path.join(ROOT, "tests", "deploy", "kubernetes_api.json"), encoding="utf-8") as f:
    API = json.load(f)

VERSIONS = {"ConfigMap": "v1", "Service": "v1", "PersistentVolumeClaim": "v1",
            "Deployment": "apps/v1", "PodDisruptionBudget": "policy/v1",
            "HorizontalPodAutoscaler": "autoscaling/v2", "NetworkPolicy": "networking.k8s.io/v1",
            "ServiceMonitor": "monitoring.coreos.com/v1",
            "PrometheusRule": "monitoring.coreos.com/v1"}

SCALARS = {"string": (str,), "boolean": (bool,), "number": (int, float),
           "number or string": (int, float, str)}


def faults(value, kind, at):
    """What the API would not take of a value, as sentences."""
    if isinstance(kind, list):
        if not isinstance(value, list):
            return [f"{at}: not a list"]
        return [x for i, v in enumerate(value) for x in faults(v, kind[0], f"{at}[{i}]")]
    if isinstance(kind, dict):
        return [x for k, v in value.items() for x in faults(v, kind["*"], f"{at}.{k}")]
    if kind in SCALARS:
        fits = isinstance(value, SCALARS[kind]) and (kind == "boolean") == isinstance(value, bool)
        return [] if fits else [f"{at}: {value!r} is no {kind}"]
    if not isinstance(value, dict):
        return [f"{at}: not an object"]
    return [x for k, v in value.items() for x in (
        faults(v, API[kind][k], f"{at}.{k}") if k in API[kind] else [f"{at}.{k}: no such field"])]


@with_kubectl
def every_field_is_the_apis():
    for name in NAMES:
        for o in render(name):
            same((o["kind"], o["apiVersion"]), (o["kind"], VERSIONS[o["kind"]]))
            if o["kind"] in API:
                same(faults(o, o["kind"], o["kind"]), [])


@with_kubectl
def a_wrong_field_would_be_seen():
    wrong = json.loads(json.dumps(deployment("base")))
    spec = wrong["spec"]["template"]["spec"]
    spec["terminationGracePeriodSeconds"] = "90"
    spec["containers"][0]["readinessProbe"]["failureTreshold"] = 3
    spec["enableServiceLinks"] = 0
    at = "Deployment.spec.template.spec."
    same(sorted(faults(wrong, "Deployment", "Deployment")), [
        at + "containers[0].readinessProbe.failureTreshold: no such field",
        at + "enableServiceLinks: 0 is no boolean",
        at + "terminationGracePeriodSeconds: '90' is no number"])


@with_kubectl
def names_and_labels_are_well_formed():
    for name in NAMES:
        for o in render(name):
            assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", o["metadata"]["name"]), o
            for key, value in o["metadata"].get("labels", {}).items():
                assert re.fullmatch(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9][\w.-]{0,62}", key), key
                assert re.fullmatch(r"[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?", value), value
        if name != "base":
            same({o["metadata"].get("namespace") for o in render(name)}, {"fathom"})


# ---- references ----

@with_kubectl
def every_reference_resolves():
    for name in NAMES:
        present = {(o["kind"], o["metadata"]["name"]) for o in render(name)} | IN_CLUSTER
        volumes = {v["name"]: v for v in pod(name)["volumes"]}
        wanted = set()
        for v in volumes.values():
            wanted |= {(kind, v[field][key]) for field, kind, key in (
                ("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName"),
                ("persistentVolumeClaim", "PersistentVolumeClaim", "claimName")) if field in v}
        for o in find(name, "HorizontalPodAutoscaler"):
            target = o["spec"]["scaleTargetRef"]
            same(target["apiVersion"], "apps/v1")
            wanted.add((target["kind"], target["name"]))
        same(wanted - present, set())
        for c in pod(name).get("initContainers", []) + pod(name)["containers"]:
            mounts = c["volumeMounts"]
            same({m["name"] for m in mounts} - set(volumes), set())
            same(len({m["mountPath"] for m in mounts}), len(mounts))


@with_kubectl
def every_selector_finds_the_pods():
    for name in NAMES:
        d = deployment(name)
        labels = d["spec"]["template"]["metadata"]["labels"]
        selectors = [d["spec"]["selector"]["matchLabels"]]
        selectors += [s["spec"]["selector"] for s in find(name, "Service")]
        selectors += [s["spec"]["selector"]["matchLabels"] for s in find(name, "PodDisruptionBudget")]
        selectors += [s["spec"]["podSelector"]["matchLabels"] for s in find(name, "NetworkPolicy")]
        selectors += [t["labelSelector"]["matchLabels"] for t in pod(name)["topologySpreadConstraints"]]
        for selector in selectors:
            assert labels_match(selector, labels), (name, selector, labels)


@with_kubectl
def every_port_is_the_containers():
    for name in NAMES:
        ports = {p["name"] for p in container(name)["ports"]}
        probes = [container(name)[k]["httpGet"]["port"]
                  for k in ("startupProbe", "readinessProbe", "livenessProbe")]
        targets = [p["targetPort"] for s in find(name, "Service") for p in s["spec"]["ports"]]
        allowed = [p["port"] for n in find(name, "NetworkPolicy")
                   for rule in n["spec"]["ingress"] for p in rule["ports"]]
        same(set(probes + targets + allowed) - ports, set())
        same(set(probes), {"admin"})


@with_kubectl
def the_monitor_finds_the_service_and_its_port():
    (monitor,) = find(WHOLE, "ServiceMonitor")
    chosen = [s for s in find(WHOLE, "Service") if labels_match(
        monitor["spec"]["selector"]["matchLabels"], s["metadata"]["labels"])]
    same([s["metadata"]["name"] for s in chosen], ["fathom-metrics"])
    same({e["port"] for e in monitor["spec"]["endpoints"]}
         - {p["name"] for p in chosen[0]["spec"]["ports"]}, set())
    # The job is named by this label; the alerts look for a name that begins with fathom.
    same(chosen[0]["metadata"]["labels"][monitor["spec"]["jobLabel"]], "fathom")


@with_kubectl
def clients_cannot_reach_the_admin_port_by_the_service():
    for name in NAMES:
        (service,) = [s for s in find(name, "Service") if s["metadata"]["name"] == "fathom"]
        same([p["targetPort"] for p in service["spec"]["ports"]], ["http"])


@with_kubectl
def the_autoscaler_asks_for_metrics_that_the_adapter_makes():
    with open(os.path.join(FOLDER, "autoscaling", "adapter-values.yaml"), encoding="utf-8") as file:
        adapter = yaml.safe_load(file)["rules"]["custom"]
    made = {rule.get("name", {}).get("as") or re.match(r"\w+", rule["seriesQuery"]).group(0)
            for rule in adapter}
    (scaler,) = find(WHOLE, "HorizontalPodAutoscaler")
    same({m["pods"]["metric"]["name"] for m in scaler["spec"]["metrics"]}, made)
    same("replicas" in deployment(WHOLE)["spec"], False)  # or applying would undo its work
    for rule in adapter:  # the labels by which a series finds its pod
        same(sorted(rule["resources"]["overrides"]), ["namespace", "pod"])


# ---- what is said of fathom ----

def settings(name):
    """The configuration that the container's arguments come to, by fathom itself."""
    (config,) = find(name, "ConfigMap")
    (mount,) = [m for m in container(name)["volumeMounts"] if m["name"] == "config"]
    arguments = container(name)["args"]
    same(arguments[0], "serve")
    with tempfile.TemporaryDirectory() as folder:
        for file, text in config["data"].items():
            with open(os.path.join(folder, file), "w", encoding="utf-8") as out:
                out.write(text)
        done = subprocess.run(
            [BINARY, "serve", "--print-config",
             *(a.replace(mount["mountPath"] + "/", folder + "/") for a in arguments[1:])],
            capture_output=True, text=True, check=False, env={
                "FATHOM_HOST": "0.0.0.0", "FATHOM_PORT": "8080"})  # as the Dockerfile sets them
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@with_kubectl
def fathom_takes_the_arguments_and_listens_on_the_ports():
    for name in NAMES:
        ports = {p["name"]: p["containerPort"] for p in container(name)["ports"]}
        s = settings(name)
        same((s["port"], s["host"], s["admin_port"], s["admin_host"]),
             (ports["http"], "0.0.0.0", ports["admin"], "0.0.0.0"))
        same(s["metrics_public"], False)  # the scraper asks the admin port, where it needs no key


@with_kubectl
def files_in_the_arguments_are_mounted():
    for name in NAMES:
        mounts = [m["mountPath"] for m in container(name)["volumeMounts"]]
        for argument in container(name)["args"][1:]:
            path = argument.partition("=")[2]
            if path.startswith("/"):
                assert any(path.startswith(m + "/") for m in mounts), (argument, mounts)


@with_kubectl
def a_pod_has_the_time_that_a_drain_takes():
    for name in NAMES:
        s, spec = settings(name), pod(name)
        drain = s["drain_delay"] / 1000 + s["drain_timeout"] / 1000 + CUT_SECONDS
        assert spec["terminationGracePeriodSeconds"] > drain, drain
        ready = container(name)["readinessProbe"]
        assert s["drain_delay"] / 1000 > ready["periodSeconds"] * ready["failureThreshold"]
        assert "lifecycle" not in container(name)


@with_kubectl
def probes_ask_what_fathom_answers():
    with Server() as server:
        for name in NAMES:
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                path = container(name)[probe]["httpGet"]["path"]
                same((path, server.ask("GET", path, admin=True).status), (path, 200))
            same(container(name)["livenessProbe"]["httpGet"]["path"], "/livez")
            same(container(name)["readinessProbe"]["httpGet"]["path"], "/readyz")


@with_kubectl
def cores_are_whole_and_the_pod_is_guaranteed():
    for name in NAMES:
        for c in pod(name).get("initContainers", []) + pod(name)["containers"]:
            r = c["resources"]
            same(r["requests"], r["limits"])
            assert re.fullmatch(r"[1-9]\d*", r["limits"]["cpu"]), r


@with_kubectl
def the_pod_is_restricted():
    """The profile "restricted" of the pod security standards, and a root file system that is read-only."""
    for name in NAMES:
        spec = pod(name)
        c = spec["securityContext"]
        assert c["runAsNonRoot"] is True and c["runAsUser"] > 0, c
        same(c["seccompProfile"]["type"], "RuntimeDefault")
        same((spec["enableServiceLinks"], spec["automountServiceAccountToken"]), (False, False))
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        for volume in spec["volumes"]:
            assert set(volume) - {"name"} <= {"configMap", "secret", "emptyDir", "projected",
                                              "persistentVolumeClaim", "csi", "downwardAPI",
                                              "ephemeral"}, volume
        for each in spec.get("initContainers", []) + spec["containers"]:
            same(each["securityContext"], {"allowPrivilegeEscalation": False,
                                           "readOnlyRootFilesystem": True,
                                           "capabilities": {"drop": ["ALL"]}})


@with_kubectl
def no_secret_is_in_the_files():
    for name in NAMES:
        same(find(name, "Secret"), [])


if __name__ == "__main__":
    sys.exit(main())
