#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The compose file and the systemd unit of deploy/: what they name exists, fathom takes their settings, and a
drain has the time that it needs."""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "http"))
import yaml  # noqa: E402
from harness import BINARY, ROOT, main, same, test  # noqa: E402

DEPLOY = os.path.join(ROOT, "deploy")
UNIT = os.path.join(DEPLOY, "systemd", "fathom.service")
CUT_SECONDS = 5  # that a drain takes beyond its timeout at most
MOST_EXPOSURE = 2.0  # of 10, as `systemd-analyze security` counts
ANALYZE = shutil.which("systemd-analyze")
COMPOSE = [c for c in (["docker-compose"], ["docker", "compose"]) if shutil.which(c[0])
           and subprocess.run([*c, "version"], capture_output=True, check=False).returncode == 0]


def needs(tool, name):
    def wrap(function):
        if tool:
            return test(function)

        def skipped():
            pass
        skipped.__name__ = f"{function.__name__} # SKIP {name} is not installed"
        return test(skipped)
    return wrap


def settings(arguments, environ):
    done = subprocess.run([BINARY, "serve", "--print-config", *arguments], capture_output=True,
                          text=True, check=False, env=environ)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def drain_seconds(config):
    return (config["drain_delay"] + config["drain_timeout"]) / 1000 + CUT_SECONDS


# ---- compose ----

def compose():
    with open(os.path.join(DEPLOY, "compose", "compose.yaml"), encoding="utf-8") as f:
        return yaml.safe_load(f)


def replica(name):
    """A replica's settings, with those of the image."""
    return settings([], {"FATHOM_HOST": "0.0.0.0", "FATHOM_PORT": "8080",
                         **compose()["services"][name]["environment"]})


@needs(COMPOSE, "docker compose")
def compose_takes_the_file():
    done = subprocess.run([*COMPOSE[0], "-f", os.path.join(DEPLOY, "compose", "compose.yaml"),
                           "config"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    same(set(yaml.safe_load(done.stdout)["services"]), set(compose()["services"]))


@test
def what_compose_mounts_exists():
    folder = os.path.join(DEPLOY, "compose")
    mounts = [v for s in compose()["services"].values() for v in s.get("volumes", [])]
    assert len(mounts) > 3
    for mount in mounts:
        source, target, mode = mount.split(":")
        assert os.path.exists(os.path.join(folder, source)), source
        assert target.startswith("/") and mode == "ro", mount
    same(os.path.exists(os.path.join(folder, compose()["services"]["fathom-a"]["build"],
                                     "Dockerfile")), True)


@test
def what_compose_says_of_a_replica_is_so():
    services = compose()["services"]
    for name in ("fathom-a", "fathom-b"):
        config = replica(name)
        grace = int(re.fullmatch(r"(\d+)s", services[name]["stop_grace_period"]).group(1))
        assert grace > drain_seconds(config), grace
        same((config["admin_host"], config["metrics_public"]), ("0.0.0.0", False))


@test
def the_balancer_and_the_scraper_ask_where_replicas_listen():
    services = compose()["services"]
    with open(os.path.join(DEPLOY, "prometheus", "prometheus.yml"), encoding="utf-8") as f:
        jobs = {j["job_name"]: j["static_configs"][0]["targets"]
                for j in yaml.safe_load(f)["scrape_configs"]}
    same(jobs["fathom"], [f"{n}:{replica(n)['admin_port']}" for n in ("fathom-a", "fathom-b")])
    balancer = services["haproxy"]["environment"]
    same(jobs["haproxy"], ["haproxy" + balancer["FATHOM_STATS"]])
    same([balancer["FATHOM_A"], balancer["FATHOM_B"]],
         [f"{n}:{replica(n)['port']}" for n in ("fathom-a", "fathom-b")])
    with open(os.path.join(DEPLOY, "haproxy", "haproxy.cfg"), encoding="utf-8") as f:
        text = f.read()
    for name in balancer:
        assert f"${{{name}-" in text, name
    assert f"${{FATHOM_A_ADMIN-{replica('fathom-a')['admin_port']}}}" in text


@test
def grafana_finds_the_data_and_the_dashboard():
    folder = os.path.join(DEPLOY, "grafana", "provisioning")
    with open(os.path.join(folder, "datasources", "prometheus.yml"), encoding="utf-8") as f:
        (source,) = yaml.safe_load(f)["datasources"]
    same(source["url"], "http://prometheus:9090")
    with open(os.path.join(folder, "dashboards", "fathom.yml"), encoding="utf-8") as f:
        (provider,) = yaml.safe_load(f)["providers"]
    mounted = [v.split(":")[1] for v in compose()["services"]["grafana"]["volumes"]]
    same(provider["options"]["path"] + "/fathom.json" in mounted, True)


# ---- systemd ----

def unit_lines(key):
    with open(UNIT, encoding="utf-8") as f:
        return [line.split("=", 1)[1].strip() for line in f if line.startswith(key + "=")]


def unit_here():
    """The unit with the binary at hand in the place of the installed one."""
    folder = tempfile.TemporaryDirectory()
    with open(UNIT, encoding="utf-8") as f:
        text = f.read().replace("/usr/bin/fathom", os.path.abspath(BINARY))
    path = os.path.join(folder.name, "fathom.service")
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return folder, path


@needs(ANALYZE, "systemd-analyze")
def systemd_takes_the_unit():
    folder, path = unit_here()
    with folder:
        done = subprocess.run([ANALYZE, "verify", "--man=no", path], capture_output=True, text=True,
                              check=False)
    about_it = [line for line in done.stderr.splitlines() if "fathom.service" in line]
    same((done.returncode, about_it), (0, []))


@needs(ANALYZE, "systemd-analyze")
def the_unit_exposes_little():
    folder, path = unit_here()
    with folder:
        done = subprocess.run([ANALYZE, "security", "--offline=true", "--no-pager", path],
                              capture_output=True, text=True, check=False)
    found = re.search(r"exposure level for fathom\.service: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found.group(1)) <= MOST_EXPOSURE, found.group(0)


@test
def the_unit_gives_a_drain_its_time():
    (start,) = unit_lines("ExecStart")
    arguments = start.split()
    same(arguments[:2], ["/usr/bin/fathom", "serve"])
    arguments = [a.replace("/etc/fathom", os.path.join(DEPLOY, "systemd")) for a in arguments[2:]]
    config = settings(arguments, {})
    (stop,) = unit_lines("TimeoutStopSec")
    assert int(stop.removesuffix("s")) > drain_seconds(config), stop
    same(config["host"], "127.0.0.1")  # no key is set


@needs(ANALYZE, "systemd-analyze")
def the_filter_lets_through_what_makes_pipes():
    """libuv needs pipes, which systemd counts to @ipc: taking that group away keeps fathom from starting."""
    taken = " ".join(f for f in unit_lines("SystemCallFilter") if f.startswith("~"))
    for group in re.findall(r"@[\w-]+", taken):
        listed = subprocess.run([ANALYZE, "syscall-filter", group], capture_output=True, text=True,
                                check=True).stdout.split()
        same({"pipe2", "epoll_create1", "eventfd2", "prlimit64", "sched_setaffinity"}
             & set(listed), set())


if __name__ == "__main__":
    sys.exit(main())
