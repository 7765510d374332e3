"use strict";
// The JSON of the page by its id, parsed when it is first needed.
const read = (cache => id => cache[id] ??= JSON.parse(document.getElementById(id).textContent))({});
const settings = read("settings");

// A packed table as rows. A column of words holds its distinct words and the index of each row's word.
const rowsOf = (cache => name => cache[name] ??= unpack(read(`data-${name}`)))({});
function unpack({n, columns}) {
  const rows = Array.from({length: n}, () => ({}));
  for (const [name, values] of Object.entries(columns)) {
    const words = values.words;
    for (let i = 0; i < n; i++) rows[i][name] = words ? words[values.codes[i]] ?? null : values[i];
  }
  return rows;
}

// The rows of a table with the wanted values in some columns. An index per set of columns avoids a search.
const indexes = {};
function find(name, wanted) {
  const keys = Object.keys(wanted), id = name + "\0" + keys;
  if (!indexes[id]) {
    indexes[id] = new Map();
    for (const row of rowsOf(name)) {
      const key = JSON.stringify(keys.map(name => row[name]));
      indexes[id].get(key)?.push(row) ?? indexes[id].set(key, [row]);
    }
  }
  return indexes[id].get(JSON.stringify(Object.values(wanted))) ?? [];
}

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
