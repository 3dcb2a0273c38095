"""What a program in Python does with a swarm, through Docker's SDK; DOCKER_HOST says
which. It fails at the first thing that isn't as the SDK's documentation says."""

import sys
import time

import docker
from docker.types import (ConfigReference, EndpointSpec, Mount, Resources, RestartPolicy,
                          SecretReference, ServiceMode, UpdateConfig)

image = sys.argv[1]
client = docker.from_env(version="auto" if len(sys.argv) < 3 else sys.argv[2], timeout=20)


def check(condition, *what):
    if not condition:
        raise SystemExit("not so: %r" % (what,))


def wait(what, condition):
    for _ in range(300):
        if condition():
            return
        time.sleep(0.1)
    raise SystemExit("waited in vain until " + what)


def refused(status, text, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except docker.errors.APIError as error:
        check(error.status_code == status and text in error.explanation, error)
        return
    raise SystemExit("%r was not refused" % (call,))


check(client.ping())
check(client.info()["Swarm"]["LocalNodeState"] == "active")
client.swarm.reload()
check(client.swarm.attrs["Spec"]["Name"] == "default", client.swarm.attrs)
refused(503, "already part of a swarm", client.swarm.init)
check(client.swarm.update(labels={"sdk": "python"}))
client.swarm.reload()
check(client.swarm.attrs["Spec"]["Labels"] == {"sdk": "python"}, client.swarm.attrs["Spec"])

node = client.nodes.list(filters={"role": "manager"})[0]
spec = dict(node.attrs["Spec"], Labels={"sdk": "python"})
check(node.update(spec))
check(client.nodes.get(node.id).attrs["Spec"]["Labels"] == {"sdk": "python"})

secret = client.secrets.create(name="sdk-secret", data=b"hush", labels={"a": "b"})
secret.reload()  # the SDK's answer of create has no name
check(secret.name == "sdk-secret" and "Data" not in secret.attrs["Spec"], secret.attrs)
config = client.configs.create(name="sdk-config", data=b"text")
config.reload()  # as above
check([c.name for c in client.configs.list(filters={"name": "sdk-"})] == ["sdk-config"])
refused(409, "already exists", client.secrets.create, name="sdk-secret", data=b"other")

service = client.services.create(
    image, name="sdk", env=["A=b"], labels={"l": "v"}, container_labels={"c": "v"},
    constraints=["node.labels.sdk==python"], mode=ServiceMode("replicated", 2),
    resources=Resources(mem_limit=64 << 20, cpu_reservation=10_000_000),
    restart_policy=RestartPolicy("on-failure", delay=1_000_000_000, max_attempts=3),
    update_config=UpdateConfig(parallelism=2, delay=0, monitor=50_000_000, order="start-first"),
    secrets=[SecretReference(secret.id, "sdk-secret", filename="/k", mode=0o400)],
    configs=[ConfigReference(config.id, "sdk-config")],
    mounts=[Mount("/t", None, type="tmpfs", tmpfs_size=1 << 20)],
    hosts={"db": "10.0.0.1"}, stop_grace_period=3_000_000_000, hostname="h", user="0",
    endpoint_spec=EndpointSpec(mode="dnsrr"), log_driver="json-file",
    log_driver_options={"max-size": "1m"}, maxreplicas=2, init=True, cap_add=["NET_ADMIN"])


def states():
    return [t["Status"]["State"] for t in service.tasks(filters={"desired-state": "running"})]


wait("two tasks run", lambda: states() == ["running"] * 2)
service = client.services.get("sdk")
container = service.attrs["Spec"]["TaskTemplate"]["ContainerSpec"]
check(container["Env"] == ["A=b"] and container["Hosts"] == ["10.0.0.1 db"], container)
check(client.services.list(filters={"name": "sdk", "label": "l=v"})[0].id == service.id)
check(client.services.get("sdk", insert_defaults=True).attrs["Spec"]["TaskTemplate"]["Placement"]["MaxReplicas"] == 2)

wait("there are logs", lambda: b"time check" in b"".join(service.logs(stdout=True, stderr=True)))
check(len(list(service.logs(stdout=True, tail=1, timestamps=True))) >= 1)

check(service.update(env=["A=c"], force_update=1) == {"Warnings": None})
service.reload()
container = service.attrs["Spec"]["TaskTemplate"]["ContainerSpec"]
check(container["Env"] == ["A=c"] and len(container["Secrets"]) == 1, container)
check(service.attrs["Spec"]["Mode"] == {"Replicated": {"Replicas": 2}}, service.attrs["Spec"])
stale = client.services.get("sdk")
check(service.scale(1))
refused(500, "update out of sequence", stale.scale, 2)
service.reload()
wait("one task runs", lambda: states() == ["running"])
check(service.force_update())
wait("the update is over", lambda: client.services.get("sdk").attrs.get("UpdateStatus", {}).get("State") == "completed")

events = client.events(since=int(time.time()) - 60, until=int(time.time()) + 1, decode=True,
                       filters={"type": "service", "event": "create"})
check("sdk" in [e["Actor"]["Attributes"]["name"] for e in events])
check([t for t in client.api.tasks(filters={"service": "sdk", "node": node.id})])

refused(400, "is in use by the following service: sdk", secret.remove)
refused(404, "not found", client.services.get, "none")
refused(404, "network front not found", client.services.create, image, networks=["front"])
check(service.remove() is True)
check(client.services.list() == [])
for thing in (secret, config):
    check(thing.remove() is True)
wait("no container is left", lambda: not client.containers.list(all=True, ignore_removed=True, filters={
    "label": ["com.docker.swarm.service.name=sdk", "com.docker.swarm.node.id=" + node.id]}))
