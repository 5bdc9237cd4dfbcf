"""Ray's own dashboards for Grafana, as the installed Ray makes them.

    python -m trading.app.ray_dashboards FOLDER

Ray writes them where its dashboard runs, in the folder of its session. Grafana is another pod or
another machine: there this writes the same files, without a Ray that runs. They ask for the
`ray_...` metrics of every node, and choose the Prometheus that Grafana has.
"""

import json
import sys
from pathlib import Path

from ray.dashboard.modules.metrics import grafana_dashboard_factory as factory

_MADE = {
    "ray-core.json": factory.generate_default_grafana_dashboard,
    "ray-serve.json": factory.generate_serve_grafana_dashboard,
    "ray-serve-deployments.json": factory.generate_serve_deployment_grafana_dashboard,
}
"""Those of what this application uses: no panels of Ray Data, Ray Train or language models."""


def write_ray_dashboards(folder: Path) -> list[Path]:
    """Write Ray's dashboards into a folder that is there.

    Parameters
    ----------
    folder
        What Grafana's provider of dashboards reads.

    Returns
    -------
    list of Path
        The files, one for each dashboard.
    """
    files = []
    for name, make in _MADE.items():
        content, _ = make()
        file = folder / name
        file.write_text(json.dumps(json.loads(content), indent=1) + "\n")
        files.append(file)
    return files


if __name__ == "__main__":
    for each in write_ray_dashboards(Path(sys.argv[1])):
        print(each)
