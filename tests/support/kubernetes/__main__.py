"""Write what is derived from the settings and the chart."""

from tests.support.kubernetes.chart import CHART
from tests.support.kubernetes.derived import (
    BASE,
    alerts,
    chart_yaml,
    kustomize_base,
    values_schema,
)

if __name__ == "__main__":
    (CHART / "Chart.yaml").write_text(chart_yaml())
    (CHART / "values.schema.json").write_text(values_schema())
    (CHART / "files/alerts.yaml").write_text(alerts())
    wanted = kustomize_base()
    for stale in set(BASE.iterdir()) - set(wanted):
        stale.unlink()
    for path, text in wanted.items():
        path.write_text(text)
