"""Plays a suite of another project in the lab: it has Python's standard library and the file of `lab --traffic --json`, no more.

Prints a line for each thing that is as such a suite expects it, and ends with an error at the first that is not.
"""

import http.client
import ipaddress
import json
import socket
import ssl
import struct
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

NAMESPACE = "suite"
LIMIT = 150
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))

with open(sys.argv[1], encoding="utf-8") as file:
    LAB = json.load(file)


def until(what, condition):
    """Returns the condition's first value that is true."""
    end = time.monotonic() + LIMIT
    while True:
        try:
            value, reason = condition(), "not yet"
        except OSError as error:
            value, reason = None, repr(error)
        except http.client.HTTPException as error:
            value, reason = None, repr(error)
        if value:
            return value
        if time.monotonic() > end:
            sys.exit(f"waited {LIMIT} s for {what}: {reason}")
        time.sleep(0.2)


def expect(condition, message):
    if not condition:
        sys.exit(message)


class Api:
    """The Kubernetes API as the kubeconfig file says."""

    def __init__(self):
        with open(LAB["kubeconfig"], encoding="utf-8") as kubeconfig:
            config = json.load(kubeconfig)
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.server, self.token = cluster["server"], user["token"]
        context = ssl.create_default_context(cafile=cluster["certificate-authority"])
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))

    def call(self, method, path, body=None):
        """Returns the answer; None for what does not exist."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.server + path, data, headers, method=method)
        try:
            with self.opener.open(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            sys.exit(f"{method} {path}: {error.code} {error.read().decode()}")


API = Api()
PATHS = {
    "Deployment": "apis/apps/v1", "StatefulSet": "apis/apps/v1", "Job": "apis/batch/v1",
    "Ingress": "apis/networking.k8s.io/v1", "Service": "api/v1",
}  # fmt: skip
PLURALS = {"Ingress": "ingresses"}


def path(kind, name=""):
    plural = PLURALS.get(kind, kind.lower() + "s")
    return f"/{PATHS[kind]}/namespaces/{NAMESPACE}/{plural}/{name}".rstrip("/")


def create(kind, name, spec, annotations=None):
    version = PATHS[kind].split("/", 1)[1]
    metadata = {"name": name, "annotations": annotations or {}}
    API.call("POST", path(kind), {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec})


def get(kind, name):
    return API.call("GET", path(kind, name))


def status(kind, name):
    return get(kind, name).get("status", {})


def workload(name, replicas, container, **extra):
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "app", **container}]}}
    return {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template, **extra}


def service(name, kind, port, target, protocol="TCP"):
    ports = [{"port": port, "targetPort": target, "protocol": protocol}]
    return {"type": kind, "selector": {"app": name}, "ports": ports}


def host_name(kind, name):
    """Returns the host name that the object's status has, once it has one."""

    def published():
        hosts = status(kind, name).get("loadBalancer", {}).get("ingress", [])
        return hosts and hosts[0].get("hostname")

    return until(f"the host name of {kind} {name}", published)


def skip_name(packet, at):
    while packet[at] != 0:
        if packet[at] >= 0xC0:
            return at + 2
        at += 1 + packet[at]
    return at + 1


def ask_dns(name):
    """Returns the code and the addresses that the lab's DNS server has for a name."""
    question = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0\0\1\0\1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect((LAB["dns"]["address"], LAB["dns"]["port"]))
        client.send(struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + question)
        packet = client.recv(4096)
    _, flags, questions, answers, _, _ = struct.unpack(">6H", packet[:12])
    at, addresses = 12, []
    for _ in range(questions):
        at = skip_name(packet, at) + 4
    for _ in range(answers):
        at = skip_name(packet, at)
        kind, _, _, length = struct.unpack(">HHIH", packet[at : at + 10])
        at += 10
        if kind == 1:
            addresses.append(str(ipaddress.IPv4Address(packet[at : at + length])))
        at += length
    return flags & 15, addresses


def resolve(name):
    return until(f"an address of {name}", lambda: ask_dns(name)[1])


def port(number):
    return number + LAB["portOffset"]


def connect(address, number):
    return socket.create_connection((address, port(number)), timeout=10)


def request(stream, host, target="/"):
    """Returns the status, the pod that answered, and the body."""
    connection = http.client.HTTPConnection(host)
    connection.sock = stream
    try:
        connection.request("GET", target)
        answer = connection.getresponse()
        return answer.status, answer.getheader("x-pod", ""), answer.read().decode()
    finally:
        connection.close()


def secure(stream, host):
    context = ssl.create_default_context(cafile=LAB["certificateAuthority"])
    # As newer versions of Python do it by themselves.
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context.wrap_socket(stream, server_hostname=host)


def on_loopback(address):
    """Returns where a node or a pod of the VPC listens, as docs/fabric.md says."""
    return address.replace("10.0.", "127.10.", 1)


def check_nodes():
    nodes = API.call("GET", "/api/v1/nodes")["items"]
    for node in nodes:
        zone, instance = node["spec"]["providerID"].removeprefix("aws:///").split("/")
        labels = node["metadata"]["labels"]
        expect(zone == labels["topology.kubernetes.io/zone"] and instance.startswith("i-"), f"a node's place: {node}")
    expect(len({node["metadata"]["labels"]["topology.kubernetes.io/zone"] for node in nodes}) == 3, "three zones")
    print("nodes have instances and zones")
    addresses = [address for node in nodes for address in node["status"]["addresses"]]
    return [address["address"] for address in addresses if address["type"] == "InternalIP"]


def make():
    API.call("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    account = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default"
    until("the namespace's ServiceAccount", lambda: API.call("GET", account))
    ready = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    color = {
        "image": "example.com/colorteller:latest",
        "ports": [{"containerPort": 8080}],
        "env": [{"name": "SERVER_PORT", "value": "8080"}, {"name": "COLOR", "value": "teal"}],
        "readinessProbe": ready,
    }
    create("Deployment", "color", workload("color", 2, color))
    create("Service", "color", service("color", "NodePort", 80, 8080))
    backend = {"service": {"name": "color", "port": {"number": 80}}}
    annotations = {
        "scheme": "internet-facing",
        "target-type": "ip",
        "listen-ports": '[{"HTTP": 80}, {"HTTPS": 443}]',
        "certificate-arn": LAB["certificates"]["example.com"],
    }
    annotations = {f"alb.ingress.kubernetes.io/{key}": value for key, value in annotations.items()}
    paths = [{"path": "/", "pathType": "Prefix", "backend": backend}]
    create("Ingress", "color", {"ingressClassName": "alb", "rules": [{"http": {"paths": paths}}]}, annotations)

    echo = {"image": "example.com/echo-basic:v1", "ports": [{"containerPort": 3000}]}
    create("Deployment", "echo", workload("echo", 1, echo))
    create("Service", "echo", service("echo", "NodePort", 80, 3000))

    hello = {"image": "example.com/hello-multi", "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1}}
    create("StatefulSet", "hello", workload("hello", 2, hello, serviceName="hello"))
    balanced("hello", service("hello", "LoadBalancer", 80, 80), "instance")
    datagrams = {"image": "example.com/udp-echoserver"}
    create("Deployment", "datagrams", workload("datagrams", 1, datagrams))
    balanced("datagrams", service("datagrams", "LoadBalancer", 5353, 8080, "UDP"), "ip")

    never = {"image": "example.com/app", "readinessProbe": {"tcpSocket": {"port": 81}, "periodSeconds": 1}}
    create("Deployment", "never", workload("never", 1, never))
    task = {"restartPolicy": "Never", "containers": [{"name": "app", "image": "busybox"}]}
    create("Job", "task", {"template": {"spec": task}})


def balanced(name, spec, targets):
    annotations = {"scheme": "internet-facing", "nlb-target-type": targets}
    annotations["attributes"] = "load_balancing.cross_zone.enabled=true"
    annotations = {f"service.beta.kubernetes.io/aws-load-balancer-{key}": value for key, value in annotations.items()}
    create("Service", name, {**spec, "loadBalancerClass": "service.k8s.aws/nlb"}, annotations)


def check_workloads():
    until("the Deployment color", lambda: status("Deployment", "color").get("availableReplicas") == 2)
    until("the StatefulSet hello", lambda: status("StatefulSet", "hello").get("readyReplicas") == 2)
    until("the Job task", lambda: status("Job", "task").get("succeeded") == 1)
    until("the Deployment never", lambda: status("Deployment", "never").get("unavailableReplicas") == 1)
    print("Deployments, StatefulSets and Jobs become ready as their probes say")


def check_node_ports(nodes):
    number = get("Service", "echo")["spec"]["ports"][0]["nodePort"]
    for node in nodes:
        code, pod, body = until("the node port", lambda node=node: request(connect(on_loopback(node), number), "echo"))
        expect((code, json.loads(body)["pod"]) == (200, pod) and pod.startswith("echo-"), f"a node port: {code} {pod} {body}")
    print("each node has the Service's node port")


def check_ingress():
    name = host_name("Ingress", "color")
    addresses = resolve(name)
    expect(all(address.startswith("127.20.") for address in addresses), f"{name} has {addresses}")
    pods = set()

    def both():
        code, pod, body = request(connect(resolve(name)[0], 80), name)
        if code == 200:
            expect(body == "teal", f"the color is {body}")
            pods.add(pod)
        return len(pods) == 2

    until("both pods of color", both)

    def verified():
        code, _, body = request(secure(connect(resolve(name)[0], 443), "example.com"), "example.com")
        return (code, body) == (200, "teal")

    until("the color over HTTPS", verified)
    print("the Ingress has the color, over HTTP of both pods and over HTTPS")
    return name


def check_services():
    hello = host_name("Service", "hello")
    code, pod, body = until("hello", lambda: request(connect(resolve(hello)[0], 80), hello))
    expect((code, body) == (200, f"Hello from {pod}\n") and pod.startswith("hello-"), f"hello: {code} {pod} {body}")
    name = host_name("Service", "datagrams")

    def echoed():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(1)
            client.connect((resolve(name)[0], port(5353)))
            client.send(b"datagram")
            return b"datagram" in client.recv(100)

    until("the echo of a datagram", echoed)
    print("the Services answer, over node ports and over UDP")
    return [hello, name]


def check_account(names):
    scope = "x/20260101/{region}/elasticloadbalancing/aws4_request".format(**LAB)
    headers = {"Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"}
    form = urllib.parse.urlencode({"Action": "DescribeLoadBalancers", "Version": "2015-12-01"}).encode()
    with OPENER.open(urllib.request.Request(LAB["awsEndpoint"], form, headers), timeout=30) as answer:
        told = answer.read().decode()
    expect(all(f"<DNSName>{name}</DNSName>" in told for name in names), f"AWS has other load balancers: {told}")
    expect(f"<VpcId>{LAB['vpc']}</VpcId>" in told, "the load balancers are in the VPC")
    subnets = {name for name, subnet in LAB["subnets"].items() if f"<SubnetId>{subnet}</SubnetId>" in told}
    expect(subnets == {"public-a", "public-b", "public-c"}, f"the load balancers are in {subnets}")
    print("AWS has the load balancers")


def clean(names):
    for kind, name in [("Ingress", "color"), ("Service", "hello"), ("Service", "datagrams")]:
        API.call("DELETE", path(kind, name))
        until(f"{kind} {name} to be gone", lambda kind=kind, name=name: get(kind, name) is None)
    for name in names:
        until(f"{name} to be forgotten", lambda name=name: ask_dns(name)[0] == 3)
    API.call("DELETE", f"/api/v1/namespaces/{NAMESPACE}")
    until("the namespace to be gone", lambda: API.call("GET", f"/api/v1/namespaces/{NAMESPACE}") is None)
    print("all is gone")


NODES = check_nodes()
make()
check_workloads()
check_node_ports(NODES)
NAMES = [check_ingress(), *check_services()]
check_account(NAMES)
clean(NAMES)
