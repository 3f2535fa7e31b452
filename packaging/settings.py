"""Prints the settings that the Kubernetes manifests and the compose file give to Tollgate: a line each, the file and then
NAME=value."""

from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent

for resource in yaml.safe_load_all((HERE / "kubernetes" / "tollgate.yaml").read_text()):
    if resource["kind"] == "Deployment":
        for container in resource["spec"]["template"]["spec"]["containers"]:
            values = (f"{variable['name']}={variable['value']}" for variable in container["env"] if "value" in variable)
            print("kubernetes", *values)
compose = yaml.safe_load((HERE / "compose.yaml").read_text())
print("compose", *(f"{name}={value}" for name, value in compose["services"]["tollgate"]["environment"].items()))
