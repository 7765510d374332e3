"use strict";
// The JSON of the page by its id, parsed when it is first needed.
const read = (cache => id => cache[id] ??= JSON.parse(document.getElementById(id).textContent))({});
const settings = read("settings");

// Packed tables by name, decompressed when a figure or table first needs them: a large study has millions of numbers.
const packed = {};
const load = (started => name => started[name] ??= decompress(document.getElementById(`data-${name}`)).then(data => { packed[name] = data; }))({});
function decompress(script) {
  const binary = atob(script.textContent), bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

// The name of the part of a table that figures of the chosen model read: the largest tables are split by model.
const partOf = name => settings.split?.includes(name) ? `${name}-${settings.models.indexOf(state.model)}` : name;

// The rows of a loaded table with the wanted values in some columns. A column of words holds its distinct words and the index of each row's word.
function find(name, wanted = {}) {
  const {n, columns} = packed[partOf(name)], fields = Object.entries(columns), rows = [];
  const conditions = Object.entries(wanted).map(([key, value]) => {
    const {words, codes} = columns[key];
    if (!words) return [columns[key], value];
    const word = words.indexOf(value);
    return [codes, word < 0 && known(value) ? null : word];  // the code of an unknown value is -1
  });
  for (let i = 0; i < n; i++) {
    if (conditions.every(([cells, cell]) => cells[i] === cell))
      rows.push(Object.fromEntries(fields.map(([key, values]) => [key, values.words ? values.words[values.codes[i]] ?? null : values[i]])));
  }
  return rows;
}
const rowsOf = (cache => name => cache[name] ??= find(name))({});

// Formats of values, as in analysis/formatting.py. An unknown value is shown as a dash.
const minus = text => text.replaceAll("-", "−");
const known = value => value !== null && value !== undefined && value !== "";
const show = {
  text: value => String(value),
  outcome: value => settings.outcomes[value] ?? value,
  percent: value => `${(100 * value).toFixed(1)}%`,
  points: value => minus(`${value <= -5e-4 ? "" : "+"}${(100 * value).toFixed(1).replace(/^-0\.0$/, "0.0")}`),
  number: value => minus(value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(2)
    : Math.abs(value) < 100 ? value.toPrecision(3) : String(Number(value.toPrecision(3)))),
  plain: value => minus(Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(3)))),
};
const shown = (value, kind = "number") => known(value) ? show[kind](value) : "–";

function element(tag, attributes = {}, ...children) {
  const created = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) created.addEventListener(name.slice(2), value);
    else created.setAttribute(name, value);
  }
  created.append(...children);
  return created;
}
