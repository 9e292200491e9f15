// One dashboard's JSON, drawn by Grafana's own components from what a real Prometheus answers.
// No Grafana server has a part in this: what loads the file, interpolates variables and asks is in here, and small.
// ?dashboard=FILE&prometheus=PORT&machines=REGEX&rows=FIRST-LAST&now=TIME&seconds=RANGE
import React from 'react';
import { createRoot } from 'react-dom/client';
import { firstValueFrom } from 'rxjs';
import * as data from '@grafana/data';
import * as ui from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';

const asked = new URLSearchParams(location.search);
const seconds = +asked.get('seconds');
const now = +asked.get('now');
const theme = data.createTheme({ colors: { mode: 'dark' } });
const WIDTH = 1200, COLUMN = WIDTH / 24, LINE = 38, GAP = 8;
const wrong = [];
for (const kind of ['error', 'warn']) console[kind] = (...all) => wrong.push(`${kind}: ${all.join(' ').slice(0, 300)}`);
addEventListener('error', (event) => wrong.push(String(event.message)));
addEventListener('unhandledrejection', (event) => wrong.push(String(event.reason)));

const option = (id, path, isCustom) => ({ id, path, isCustom, name: id, category: [], settings: {}, process: (value) => value, shouldApply: () => true, override: () => null, editor: () => null });
const STANDARD = ['unit', 'min', 'max', 'decimals', 'displayName', 'color', 'thresholds', 'mappings', 'noValue', 'links'];
const CUSTOM = ['drawStyle', 'lineInterpolation', 'lineStyle', 'lineWidth', 'fillOpacity', 'fillBelowTo', 'showPoints', 'spanNulls', 'insertNulls', 'stacking', 'axisSoftMin', 'axisPlacement', 'hideFrom', 'scaleDistribution', 'thresholdsStyle', 'cellOptions', 'width', 'minWidth', 'wrapHeaderText'];
data.standardFieldConfigEditorRegistry.setInit(() => STANDARD.map((id) => option(id, id, false)));
const registry = new data.FieldConfigOptionsRegistry(() => [...data.standardFieldConfigEditorRegistry.list(), ...CUSTOM.map((id) => option(`custom.${id}`, id, true))]);
const { mergeTransformer, filterFieldsByNameTransformer, organizeFieldsTransformer } = data.standardTransformers;
data.standardTransformersRegistry.setInit(() => [mergeTransformer, filterFieldsByNameTransformer, organizeFieldsTransformer].map((one) => ({ id: one.id, name: one.name, transformation: async () => one })));

const VARIABLES = { $__rate_interval: '1m', $__range: `${seconds}s`, $job: asked.get('machines'), $instance: asked.get('machines') };
const interpolated = (text) => Object.entries(VARIABLES).reduce((done, [name, value]) => done.replaceAll(name, value), text);
const legend = (format, labels) => format.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, name) => labels[name] ?? '');

async function ask(path, parameters) {
  const answer = await (await fetch(`http://127.0.0.1:${asked.get('prometheus')}/api/v1/${path}?${new URLSearchParams(parameters)}`)).json();
  if (answer.status !== 'success') throw new Error(answer.error);
  return answer.data.result;
}

async function curves(target) {
  const step = Math.max(1, Math.floor(seconds / 200));
  const found = await ask('query_range', { query: interpolated(target.expr), start: now - seconds, end: now, step });
  return found.map(({ metric, values }) => {
    const known = new Map(values);
    const times = Array.from({ length: Math.floor(seconds / step) + 1 }, (_, at) => now - seconds + at * step);
    const name = legend(target.legendFormat, metric);
    return data.toDataFrame({ refId: target.refId, name, fields: [
      { name: 'Time', type: data.FieldType.time, values: times.map((time) => time * 1000), config: {} },
      { name: 'Value', type: data.FieldType.number, labels: metric, values: times.map((time) => (known.has(time) ? +known.get(time) : null)), config: { displayNameFromDS: name } },
    ] });
  });
}

async function moment(target) {
  const found = await ask('query', { query: interpolated(target.expr), time: now });
  return found.map(({ metric, value }) => {
    const name = legend(target.legendFormat, metric);
    return data.toDataFrame({ refId: target.refId, name, fields: [
      { name: 'Time', type: data.FieldType.time, values: [value[0] * 1000], config: {} },
      { name: 'Value', type: data.FieldType.number, labels: metric, values: [+value[1]], config: { displayNameFromDS: name } },
    ] });
  });
}

async function table(target, isAlone) {
  const found = await ask('query', { query: interpolated(target.expr), time: now });
  if (!found.length) return [];
  const labels = [...new Set(found.flatMap(({ metric }) => Object.keys(metric)))].sort();
  return [data.toDataFrame({ refId: target.refId, fields: [
    { name: 'Time', type: data.FieldType.time, values: found.map(({ value }) => value[0] * 1000), config: {} },
    ...labels.map((label) => ({ name: label, type: data.FieldType.string, values: found.map(({ metric }) => metric[label] ?? ''), config: { filterable: true } })),
    { name: isAlone ? 'Value' : `Value #${target.refId}`, type: data.FieldType.number, values: found.map(({ value }) => +value[1]), config: {} },
  ] })];
}

async function frames(panel) {
  const ways = { timeseries: curves, stat: moment, table: (target) => table(target, panel.targets.length === 1) };
  const found = (await Promise.all(panel.targets.map(ways[panel.type]))).flat();
  const transformed = panel.transformations && found.length ? await firstValueFrom(data.transformDataFrame(panel.transformations, found)) : found;
  const fieldConfig = structuredClone(panel.fieldConfig);
  // JSON has no infinity, so the first step of a threshold has none.
  for (const step of fieldConfig.defaults.thresholds.steps) step.value ??= -Infinity;
  fieldConfig.defaults.custom = { ...(panel.type === 'timeseries' ? { axisPlacement: 'auto', hideFrom: {}, scaleDistribution: { type: 'linear' }, thresholdsStyle: { mode: 'off' } } : {}), ...fieldConfig.defaults.custom };
  const shown = data.applyFieldOverrides({ data: transformed, fieldConfig, fieldConfigRegistry: registry, replaceVariables: interpolated, theme, timeZone: 'utc' });
  data.cacheFieldDisplayNames(shown);
  return shown;
}

function Stat({ panel, found, width, height }) {
  const values = data.getFieldDisplayValues({ fieldConfig: panel.fieldConfig, reduceOptions: panel.options.reduceOptions, data: found, theme, replaceVariables: interpolated, timeZone: 'utc' });
  const { text, textMode, colorMode, graphMode, justifyMode } = panel.options;
  return <div style={{ display: 'flex' }}>{values.map(({ display }, at) => (
    <ui.BigValue key={at} width={width / values.length} height={height} value={display} theme={theme} text={text} textMode={textMode} colorMode={colorMode} graphMode={graphMode} justifyMode={justifyMode} />
  ))}</div>;
}

function Body({ panel, found, width, height }) {
  if (!found.length) {
    const absent = panel.fieldConfig.defaults.noValue || 'No data';
    return <div style={{ display: 'flex', width, height, alignItems: 'center', justifyContent: 'center', color: theme.colors.text.secondary }}>{absent}</div>;
  }
  if (panel.type === 'stat') return <Stat {...{ panel, found, width, height }} />;
  if (panel.type === 'table') return <TableNG data={found[0]} width={width} height={height} initialSortBy={panel.options.sortBy} cellHeight={panel.options.cellHeight} structureRev={1} getActions={() => []} />;
  const timeRange = { from: data.dateTime((now - seconds) * 1000), to: data.dateTime(now * 1000), raw: { from: '', to: '' } };
  return <ui.TimeSeries frames={found} timeRange={timeRange} timeZone="utc" width={width} height={height} legend={panel.options.legend} />;
}

function Panel({ panel, found, top }) {
  const { x, y, w, h } = panel.gridPos;
  const place = { position: 'absolute', left: x * COLUMN, top: (y - top) * LINE };
  if (panel.type === 'row') return <div style={{ ...place, color: theme.colors.text.primary, fontSize: 16, paddingTop: 8 }}>{panel.title}</div>;
  return <div style={place}><ui.PanelChrome title={panel.title} width={w * COLUMN - GAP} height={h * LINE - GAP}>
    {(width, height) => <Body {...{ panel, found, width, height }} />}
  </ui.PanelChrome></div>;
}

function chosen(panels) {
  const [first, last] = asked.get('rows').split('-').map(Number);
  let row = -1;
  return panels.filter((panel) => { row += panel.type === 'row'; return row >= first && row <= last; });
}

async function draw() {
  const dashboard = await (await fetch(asked.get('dashboard'))).json();
  const panels = chosen(dashboard.panels);
  const drawn = await Promise.all(panels.map(async (panel) => ({ panel, found: panel.type === 'row' ? [] : await frames(panel) })));
  const top = panels[0].gridPos.y, bottom = Math.max(...panels.map(({ gridPos }) => gridPos.y + gridPos.h));
  createRoot(document.getElementById('page')).render(
    <data.ThemeContext.Provider value={theme}>
      <ui.GlobalStyles />
      <h3 style={{ color: theme.colors.text.primary }}>{dashboard.title}: {asked.get('machines').replaceAll('|', ', ')} (synthetic)</h3>
      <div style={{ position: 'relative', width: WIDTH, height: (bottom - top) * LINE }}>
        {drawn.map(({ panel, found }) => <Panel key={panel.id} {...{ panel, found, top }} />)}
      </div>
    </data.ThemeContext.Provider>,
  );
}

const tell = () => {
  document.body.dataset.wrong = JSON.stringify(wrong);
  document.body.dataset.height = document.documentElement.scrollHeight;
};
draw().then(() => setTimeout(tell, 2000), (error) => { wrong.push(error.stack); tell(); });
