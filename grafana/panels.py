"""What both dashboards build their panels from, so that the same thing looks the same everywhere."""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, dashboard, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heatmap_model
from grafana_foundation_sdk.models import prometheus as prometheus_model

SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
ON = 'instance=~"$instance"'
"""The label matcher that every query carries."""
EMPTY_UNTIL_LOSS = "Empty until something is lost."
"""How the description of a panel begins that has no data on a good day."""

GREEN, YELLOW, RED, BLUE = "green", "orange", "red", "blue"

Query = tuple[str, str]
"""PromQL and legend."""


def rate(metric: str, by: str = "", more: str = "") -> str:
    """Return the sum of a counter's rates, by labels."""
    group = f" by ({by})" if by else ""
    return f"sum{group} (rate({metric}{{{ON}{more}}}[$__rate_interval]))"


def quantile(share: float, histogram: str, by: str = "", more: str = "") -> str:
    """Return a histogram's quantile over the last moments."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({histogram}_bucket{{{ON}{more}}}[$__rate_interval])))"


def spread(histogram: str, by: str = "", more: str = "") -> tuple[Query, Query]:
    """Return the queries of the values below which half, and 99 %, of a histogram's observations are."""
    return (
        (quantile(0.5, histogram, by, more), "half are below"),
        (quantile(0.99, histogram, by, more), "99 % are below"),
    )


def grown(counter: str, by: str, more: str = "") -> str:
    """Return by how much a counter grew, only where it did."""
    return f"sum by ({by}) (increase({counter}{{{ON}{more}}}[$__rate_interval])) > 0"


def _target(query: Query, number: int, *, instant: bool) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query[0]).legend_format(query[1]).ref_id("ABCDEFGH"[number]).datasource(SOURCE)
    return target.instant() if instant else target.range()


def _dress(panel: Any, title: str, text: str, unit: str, queries: list[Query], *, instant: bool = False) -> Any:
    panel.title(title).description(text).unit(unit).datasource(SOURCE)
    for number, query in enumerate(queries):
        panel.with_target(_target(query, number, instant=instant))
    return panel


def _steps(steps: dict[float | None, str]) -> dashboard.ThresholdsConfig:
    levels = [model.Threshold(value=value, color=color) for value, color in steps.items()]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(levels)


def figure(
    title: str,
    text: str,
    unit: str,
    query: str,
    steps: dict[float | None, str],
    *,
    words: dict[str, str] | None = None,
    decimals: int | None = None,
    today: bool = False,
    width: int = 3,
) -> stat.Panel:
    """Return one large number, coloured by thresholds; `words` replace values, `today` counts from midnight."""
    panel = _dress(stat.Panel(), title, text, unit, [(query, title)], instant=True)
    panel.thresholds(_steps(steps)).height(4).span(width)
    panel.color_mode(common_model.BigValueColorMode.BACKGROUND).graph_mode(common_model.BigValueGraphMode.NONE)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    if decimals is not None:
        panel.decimals(decimals)
    if words:
        options = {value: model.ValueMappingResult(text=word) for value, word in words.items()}
        panel.mappings([model.ValueMap(options=options)])
    if today:
        panel.time_from("now/d")
    return panel


def lines(
    title: str,
    text: str,
    unit: str,
    *queries: Query,
    width: int = 8,
    filled: bool = False,
    stacked: bool = False,
    logarithmic: bool = False,
    top: float | None = None,
) -> timeseries.Panel:
    """Return a graph over time."""
    panel = _dress(timeseries.Panel(), title, text, unit, list(queries))
    panel.height(8).span(width).line_width(1).fill_opacity(25 if filled or stacked else 0)
    panel.show_points(common_model.VisibilityMode.NEVER)
    if not logarithmic:
        panel.min(0)
    if top is not None:
        panel.max(top)
    if stacked:
        panel.stacking(common.StackingConfig().mode(common_model.StackingMode.NORMAL).group("A"))
    if logarithmic:
        scale = common.ScaleDistributionConfig().type(common_model.ScaleDistribution.LOG).log(10)
        panel.scale_distribution(scale)
    legend = common.VizLegendOptions().show_legend(True).placement(common_model.LegendPlacement.BOTTOM)
    panel.legend(legend.display_mode(common_model.LegendDisplayMode.LIST).calcs(["lastNotNull", "max"]))
    panel.tooltip(
        common.VizTooltipOptions().mode(common_model.TooltipDisplayMode.MULTI).sort(common_model.SortOrder.DESCENDING)
    )
    return panel


def heat(title: str, text: str, unit: str, histogram: str, *, width: int = 8) -> heatmap.Panel:
    """Return a histogram over time: each column a moment, each cell's colour how many fell into its bucket."""
    panel = heatmap.Panel().title(title).description(text).unit(unit).datasource(SOURCE).height(8).span(width)
    query = f"sum by (le) (increase({histogram}_bucket{{{ON}}}[$__rate_interval]))"
    target = _target((query, "{{le}}"), 0, instant=False).format(prometheus_model.PromQueryFormat.HEATMAP)
    panel.with_target(target).calculate(False)
    color = heatmap.HeatmapColorOptions().mode(heatmap_model.HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
    panel.color(color.fill("dark-orange").exponent(0.5).reverse(False))
    panel.filter_values(heatmap.FilterValueRange().le(1e-9)).cell_gap(1)
    panel.y_axis(heatmap.YAxisConfig().unit(unit).axis_placement(common_model.AxisPlacement.LEFT))
    return panel


def bars(
    title: str, text: str, unit: str, query: str, legend: str, steps: dict[float | None, str], *, width: int = 8
) -> bargauge.Panel:
    """Return one bar for each series."""
    panel = _dress(bargauge.Panel(), title, text, unit, [(query, legend)], instant=True)
    panel.thresholds(_steps(steps)).min(0).height(8).span(width)
    panel.display_mode(common_model.BarGaugeDisplayMode.BASIC).orientation(common_model.VizOrientation.HORIZONTAL)
    return panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))


def rows(
    title: str, text: str, unit: str, query: str, columns: dict[str, str], *, legend: str, width: int = 8
) -> table.Panel:
    """Return a table of one query's present series; `columns` names what is shown of labels and `Value`, in order."""
    panel = table.Panel().title(title).description(text).unit(unit).datasource(SOURCE).height(8).span(width)
    target = _target((query, legend), 0, instant=True).format(prometheus_model.PromQueryFormat.TABLE)
    panel.with_target(target)
    order = {name: index for index, name in enumerate(columns)}
    keep = model.DataTransformerConfig(id_val="filterFieldsByName", options={"include": {"names": list(columns)}})
    name = model.DataTransformerConfig(id_val="organize", options={"indexByName": order, "renameByName": columns})
    return panel.transformations([keep, name])


def frame(title: str, uid: str, text: str, *, shards: bool) -> dashboard.Dashboard:
    """Return an empty dashboard with the variables, annotations and links that both have."""
    made = dashboard.Dashboard(title).uid(uid).description(text).tags(["tradebal"]).timezone("America/New_York")
    made.time("now-15m", "now").refresh("5s").tooltip(model.DashboardCursorSync.CROSSHAIR).readonly()
    made.with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    made.with_variable(_choice("instance", "Machine", "label_values(tradebal_up, instance)"))
    if shards:
        query = f"label_values(tradebal_shard_trades_total{{{ON}}}, shard)"
        made.with_variable(_choice("shard", "Shard", query))
    # Steps of one scrape, so that no event falls between two.
    for name, color, expression in (
        ("Disconnects", RED, f"sum by (instance, reason) (increase(tradebal_disconnects_total{{{ON}}}[5s])) > 0"),
        ("Restarts", YELLOW, f"changes(tradebal_unit_start_time_seconds{{{ON}}}[5s]) > 0"),
    ):
        query = dashboard.AnnotationQuery().name(name).datasource(SOURCE).enable(True).hide(False).icon_color(color)
        made.annotation(query.expr(expression))
    link = dashboard.DashboardLink("tradebal").type(model.DashboardLinkType.DASHBOARDS).tags(["tradebal"])
    return made.link(link.include_vars(True).keep_time(True))


def _choice(name: str, label: str, query: str) -> dashboard.QueryVariable:
    variable = dashboard.QueryVariable(name).label(label).query(query).datasource(SOURCE)
    variable.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(model.VariableSort.NUMERICAL_ASC)
    return variable.multi(True).include_all(True).current(model.VariableOption(text="All", value="$__all"))
