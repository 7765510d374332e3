// Tables that a reader can sort by a column, filter by words, and download as CSV.
const PAPER_ROWS = 25;  // printed rows; style.css hides the rows after them
const PAGE_ROWS = 100;  // rows shown at first, because drawing thousands takes seconds

const isText = column => ["text", "outcome"].includes(column.kind);

// The text after a cell's value: its p-value, or its interval ("±" if it is symmetric).
function formatBeside(column, row) {
  const [low, high] = column.beside.map(key => row[key]);
  if (!known(low)) return "";
  if (column.beside.length === 1) return ` (p ${shown(low, "plain")})`;
  const value = row[column.key], half = (high - low) / 2, symmetric = Math.abs(high + low - 2 * value) < 1e-3 * half;
  return symmetric && column.kind === "number" ? ` ± ${shown(half)}` : ` (${shown(low, column.kind)} to ${shown(high, column.kind)})`;
}

function makeCell(column, row) {
  const text = shown(row[column.key], column.kind);
  const textClass = {note: "note", cell: "long", candidate: "long", predictor: "note"}[column.key.split(".").at(-1)];
  const cell = element("td", isText(column) ? (textClass ? {class: textClass} : {}) : {class: "n"}, text);
  const extra = known(row[column.key]) ? formatBeside(column, row) : "";
  if (extra) cell.append(element("small", {}, extra));
  return cell;
}

function formatCsv(columns, rows) {
  const keys = columns.flatMap(column => [column.key, ...column.beside]);
  const quote = value => {
    const text = known(value) ? String(value) : "";
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = [keys, ...rows.map(row => keys.map(key => row[key]))];
  return lines.map(line => line.map(quote).join(",") + "\n").join("");
}

function download(name, text) {
  const link = element("a", {href: URL.createObjectURL(new Blob([text], {type: "text/csv"})), download: `${name}.csv`});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// Fills the element `host` with a table. columns: [{key, label, kind, beside}]; rows: objects.
function drawTable(host, name, caption, columns, rows) {
  const wide = columns.length > 12;
  let sorted = rows, limit = PAGE_ROWS, words = [], order = null;
  // The filter searches the formatted and the raw values of a row.
  const text = row => columns.map(column => `${shown(row[column.key], column.kind)} ${row[column.key]}`).join(" ").toLowerCase();
  const texts = new Map();  // filled when the table is first filtered
  const matching = () => !words.length ? sorted : sorted.filter(row => {
    if (!texts.has(row)) texts.set(row, text(row));
    return words.every(word => texts.get(row).includes(word));
  });
  const count = element("span", {class: "faint", role: "status"});
  const body = element("tbody");
  const more = element("button", {type: "button", class: "more", onclick: () => { limit *= 10; fill(); }});
  const heads = columns.map(column => {
    const button = element("button", {type: "button", onclick: () => sort(column)}, column.label);
    const head = element("th", {scope: "col", "data-key": column.key}, button);
    if (!isText(column)) head.className = "n";
    return head;
  });
  function sort(column) {
    const down = order?.column === column && !order.down;
    order = {column, down};
    heads.forEach((head, i) => columns[i] === column
      ? head.setAttribute("aria-sort", down ? "descending" : "ascending") : head.removeAttribute("aria-sort"));
    const key = column.key, sign = down ? -1 : 1, collator = new Intl.Collator("en", {numeric: true});
    sorted = rows.toSorted((a, b) => {
      const [x, y] = [a[key], b[key]];
      if (!known(x) || !known(y)) return known(y) - known(x);  // unknown values stay last
      return sign * (isText(column) ? collator.compare(x, y) : x - y);
    });
    fill();
  }
  function fill() {
    const matches = matching(), visibleRows = matches.slice(0, limit);
    body.replaceChildren(...visibleRows.map(row => element("tr", {}, ...columns.map(column => makeCell(column, row)))));
    const total = `${rows.length} row${rows.length === 1 ? "" : "s"}`;
    count.textContent = matches.length < rows.length ? `${matches.length} of ${total}` : total;
    host.classList.toggle("long", matches.length > PAPER_ROWS);
    more.hidden = visibleRows.length === matches.length;
    const next = Math.min(10 * limit, matches.length);
    more.textContent = `Show ${next === matches.length ? "all" : "the first"} ${next} rows`;
  }
  const filter = element("input", {
    type: "search", placeholder: "Filter rows", "aria-label": `Filter rows: ${caption}`,
    oninput: event => { words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean); fill(); },
  });
  const csv = element("button", {
    type: "button", "data-csv": name, "aria-label": `Download CSV: ${caption}`,
    onclick: () => download(name, formatCsv(columns, matching())),
  }, "Download CSV");
  const table = element("table", {id: `table-${name}`}, element("thead", {}, element("tr", {}, ...heads)), body);
  host.replaceChildren(
    element("div", {class: "tools"}, filter, count, csv),
    element("div", {class: "scroll rows", role: "region", tabindex: "0", "aria-label": caption}, table),
    more,
    element("p", {class: "on-paper faint"}, wide ? "This table is too wide to print. See the HTML page or download its CSV file there."
      : `Only the first ${PAPER_ROWS} rows are printed. See the HTML page for all rows.`),
  );
  host.classList.toggle("wide", wide);
  fill();
}

async function drawNamedTable(host) {
  const {caption, columns, data} = read("tables")[host.dataset.table];
  await load(data);
  drawTable(host, host.dataset.table, caption, columns, rowsOf(data));
}
