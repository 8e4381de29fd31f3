// Draw each chart once there is a place for it: those in a closed row wait until it is opened.
const specs = JSON.parse(document.getElementById('charts')?.textContent ?? '[]');
const draw = (root) => {
  for (const place of root.querySelectorAll('.chart:empty')) {
    if (place.offsetParent) {
      window.vegaEmbed(place, specs[place.dataset.chart], { actions: false, renderer: 'svg', tooltip: { theme: 'custom' } });
    }
  }
};

// What a cell is sorted by: its number, if it is one (1,007 or 7.09M or +4.33* or 89.5-95.4), or its text.
const key = (text) => {
  const number = /^([+-]?[\d,]*\.?\d+)([kM]?)[*%]?(-[\d.]+)?$/.exec(text);
  return number ? parseFloat(number[1].replaceAll(',', '')) * ({ k: 1e3, M: 1e6 }[number[2]] ?? 1) : text.toLowerCase();
};

const compare = (a, b) => (typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === 'number' ? -1 : 1);

for (const table of document.querySelectorAll('table.variants')) {
  const body = table.tBodies[0];
  const rows = [...body.querySelectorAll(':scope > tr.entry')].map((row) => ({ row, detail: row.nextElementSibling }));
  const headings = [...table.tHead.rows[0].cells];
  const cell = ({ row }, column) => row.cells[column].textContent.trim();

  headings.forEach((heading, column) => heading.querySelector('button').addEventListener('click', () => {
    const falling = heading.getAttribute('aria-sort') === 'ascending';
    headings.forEach((other) => other.removeAttribute('aria-sort'));
    heading.setAttribute('aria-sort', falling ? 'descending' : 'ascending');
    const full = rows.filter((one) => cell(one, column));
    full.sort((a, b) => compare(key(cell(a, column)), key(cell(b, column))) * (falling ? -1 : 1));
    const sorted = [...full, ...rows.filter((one) => !cell(one, column))]; // what is not known stays last
    body.append(...sorted.flatMap(({ row, detail }) => [row, detail]));
  }));

  const tools = table.closest('section').querySelector('.tools');
  const filter = tools.querySelector('input');
  filter.addEventListener('input', () => {
    const words = filter.value.toLowerCase().split(/\s+/);
    for (const { row, detail } of rows) {
      row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
      detail.hidden = row.hidden || row.querySelector('button').getAttribute('aria-expanded') !== 'true';
    }
    const shown = rows.filter(({ row }) => !row.hidden).length;
    tools.querySelector('output').textContent = shown === rows.length ? `${shown} rows` : `${shown} of ${rows.length} rows`;
  });

  const open = ({ row, detail }, wanted) => {
    row.querySelector('button').setAttribute('aria-expanded', wanted);
    detail.hidden = !wanted;
    draw(detail);
  };
  rows.forEach((one) => one.row.querySelector('button').addEventListener('click', () => open(one, one.detail.hidden)));
  // An address such as report.html#row-9 opens a row.
  const follow = () => {
    const named = rows.find(({ row }) => `#${row.id}` === location.hash);
    if (named) {
      open(named, true);
      named.row.scrollIntoView();
    }
  };
  addEventListener('hashchange', follow);
  follow();
}
draw(document);
