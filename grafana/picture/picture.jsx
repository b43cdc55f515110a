// Draws a dashboard's JSON with what Prometheus answered (window.DASHBOARD, window.ANSWERS, window.RANGE).
// Stats, graphs, bar gauges and panel frames are Grafana's own components; heatmaps and tables, whose components live in
// Grafana's server and not in its packages, are drawn here.
import { createTheme, createDataFrame, dateTime, FieldColorModeId, FieldType, getDisplayProcessor, ThemeContext } from '@grafana/data';
import { BarGauge, BigValue, PanelChrome, TimeSeries } from '@grafana/ui';
import { createRoot } from 'react-dom/client';

const theme = createTheme({ colors: { mode: 'dark' } });
const zone = 'America/New_York';
const cell = { width: 1600 / 24, height: 38 };
const range = {
  from: dateTime(window.RANGE[0] * 1000),
  to: dateTime(window.RANGE[1] * 1000),
  raw: { from: dateTime(window.RANGE[0] * 1000), to: dateTime(window.RANGE[1] * 1000) },
};

function dressed(panel, series, index) {
  const { custom, ...defaults } = panel.fieldConfig.defaults;
  const graph = { drawStyle: 'line', lineWidth: 1, fillOpacity: 0, showPoints: 'never', spanNulls: false,
    gradientMode: 'none', axisPlacement: 'auto', lineInterpolation: 'linear', scaleDistribution: { type: 'linear' } };
  const color = defaults.color ?? { mode: panel.type === 'timeseries' ? FieldColorModeId.PaletteClassic : FieldColorModeId.Thresholds };
  const field = {
    name: series.legend,
    type: FieldType.number,
    config: { ...defaults, color, displayName: series.legend, custom: { ...graph, ...custom } },
    values: series.values.map((value) => (Number.isFinite(value) ? value : null)),
    state: { seriesIndex: index, displayName: series.legend },
    labels: {},
  };
  field.display = getDisplayProcessor({ field, theme, timeZone: zone });
  return field;
}

function Graph({ panel, answers, width, height }) {
  const frames = answers.map((series, index) => createDataFrame({
    refId: String(index),
    fields: [
      { name: 'Time', type: FieldType.time, config: {}, values: series.times.map((at) => at * 1000) },
    ],
  }));
  frames.forEach((frame, index) => frame.fields.push(dressed(panel, answers[index], index)));
  frames.forEach((frame) => (frame.fields[0].display = getDisplayProcessor({ field: frame.fields[0], theme, timeZone: zone })));
  if (!frames.length) return <Empty width={width} height={height} />;
  const legend = { ...panel.options.legend, calcs: [] };
  return <TimeSeries frames={frames} timeRange={range} timeZone={zone} width={width} height={height} legend={legend}
    replaceVariables={(text) => text} options={panel.options} />;
}

function Empty({ width, height }) {
  return <div style={{ width, height, display: 'flex', alignItems: 'center', justifyContent: 'center', color: theme.colors.text.secondary }}>No data</div>;
}

function last(panel, series, index) {
  const field = dressed(panel, series, index);
  return { field, shown: field.display(field.values[field.values.length - 1]) };
}

function Stat({ panel, answers, width, height }) {
  if (!answers.length) return <Empty width={width} height={height} />;
  const { shown } = last(panel, answers[0], 0);
  return <BigValue value={{ ...shown, title: undefined }} width={width} height={height} theme={theme} colorMode="background" graphMode="none" justifyMode="auto" textMode="value" />;
}

function Bars({ panel, answers, width, height }) {
  const top = Math.max(...answers.map((series) => series.values[0]));
  const each = Math.floor(height / answers.length);
  return answers.map((series, index) => {
    const { field, shown } = last({ ...panel, fieldConfig: { defaults: { ...panel.fieldConfig.defaults, max: top } } }, series, index);
    return <BarGauge key={index} value={{ ...shown, title: series.legend }} field={field.config} display={field.display} width={width}
      height={each - 4} orientation="horizontal" displayMode="basic" theme={theme} itemSpacing={4} showUnfilled valueDisplayMode="color" />;
  });
}

function Heat({ panel, answers, width, height }) {
  const buckets = answers.map((series) => ({ le: Number(series.legend.replace('+Inf', 'Infinity')), at: new Map(series.times.map((at, i) => [at, series.values[i]])) }))
    .sort((one, other) => one.le - other.le);
  const used = buckets.map((bucket, i) => ({ ...bucket, cells: [...bucket.at].map(([at, value]) => [at, value - (i ? buckets[i - 1].at.get(at) ?? 0 : 0)]) }));
  const most = Math.max(...used.flatMap((bucket) => bucket.cells.map(([, value]) => value)));
  const show = getDisplayProcessor({ field: { type: FieldType.number, config: { unit: panel.fieldConfig.defaults.unit }, values: [] }, theme });
  const left = 90, bottom = 22, tall = (height - bottom) / used.length, seconds = window.RANGE[1] - window.RANGE[0];
  const x = (at) => left + ((at - window.RANGE[0]) / seconds) * (width - left);
  return <svg width={width} height={height} fontSize="11" fill={theme.colors.text.primary}>
    {used.map((bucket, i) => <g key={i}>
      {(i % 2 === 1 || used.length < 10) && <text x={left - 6} y={height - bottom - i * tall - tall / 2 + 4} textAnchor="end">≤ {show(bucket.le).text}{show(bucket.le).suffix}</text>}
      {bucket.cells.filter(([, value]) => value > 0.01).map(([at, value]) =>
        <rect key={at} x={x(at)} y={height - bottom - (i + 1) * tall} width={Math.max(1, (width - left) / seconds - 1)} height={tall - 1}
          fill="rgb(255, 152, 48)" opacity={0.2 + 0.8 * Math.sqrt(value / most)} />)}
    </g>)}
    {[0.2, 0.4, 0.6, 0.8].map((share) => <text key={share} x={x(window.RANGE[0] + share * seconds)} y={height - 6} textAnchor="middle">
      {new Date((window.RANGE[0] + share * seconds) * 1000).toLocaleTimeString('en-GB', { timeZone: zone })}</text>)}
  </svg>;
}

function Rows({ panel, answers, width, height }) {
  const { indexByName, renameByName } = panel.transformations[1].options;
  const columns = Object.entries(renameByName).sort(([one], [other]) => indexByName[one] - indexByName[other]);
  const show = (series, name) => name === 'Value' ? Math.round(series.values[0]).toLocaleString('en-US') : series.labels[name];
  const edge = { padding: '3px 8px', textAlign: 'left', borderBottom: `1px solid ${theme.colors.border.weak}` };
  return <div style={{ width, height, overflow: 'hidden' }}><table style={{ width: '100%', borderCollapse: 'collapse', fontSize: 13 }}>
    <thead><tr>{columns.map(([name, title]) => <th key={name} style={{ ...edge, color: theme.colors.text.link }}>{title}</th>)}</tr></thead>
    <tbody>{answers.map((series, i) => <tr key={i}>{columns.map(([name]) => <td key={name} style={edge}>{show(series, name)}</td>)}</tr>)}</tbody>
  </table></div>;
}

const kinds = { timeseries: Graph, stat: Stat, bargauge: Bars, heatmap: Heat, table: Rows };

function Panel({ panel }) {
  const { x, y, w, h } = panel.gridPos;
  const box = { position: 'absolute', left: x * cell.width + 4, top: y * cell.height + 4 };
  const width = w * cell.width - 8, height = h * cell.height - 8;
  if (panel.type === 'row') return <div style={{ ...box, fontSize: 16, fontWeight: 500, paddingTop: 6 }}>⌄ {panel.title}</div>;
  const Kind = kinds[panel.type];
  const answers = window.ANSWERS[panel.id];
  return <div style={box}><PanelChrome title={panel.title} width={width} height={height}>
    {(innerWidth, innerHeight) => <Kind panel={panel} answers={answers} width={innerWidth} height={innerHeight} />}
  </PanelChrome></div>;
}

const style = document.createElement('style');
style.textContent = `* { box-sizing: border-box } body { margin: 0; background: ${theme.colors.background.canvas}; color: ${theme.colors.text.primary};
  font: 14px Inter, "DejaVu Sans", sans-serif; } h2, h6 { margin: 0; font-size: 14px; font-weight: 500 } button { background: none; border: 0; color: inherit }
  .u-wrap { position: relative } .u-over, .u-under, .u-axis { position: absolute } .u-legend { display: none } canvas { display: block; position: relative; width: 100%; height: 100% }`;
document.head.append(style);
createRoot(document.getElementById('root')).render(
  <ThemeContext.Provider value={theme}>{window.DASHBOARD.panels.map((panel) => <Panel key={panel.id} panel={panel} />)}</ThemeContext.Provider>
);
