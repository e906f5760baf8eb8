"""The script of a report's page: tables with row ids can be sorted and filtered, and a click on a
dot of a chart leads to the row of its trial."""

SCRIPT = """
for (const table of document.querySelectorAll('table.rows')) {
  const body = table.tBodies[0], rows = [...body.rows];
  const filter = document.createElement('input'), count = document.createElement('span');
  filter.type = 'search';
  filter.placeholder = filter.ariaLabel = 'filter by any text';
  const show = () => {
    const words = filter.value.toLowerCase().split(/\\s+/);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every(word => text.includes(word));
      shown += !row.hidden;
    }
    count.textContent = ` ${shown} of ${rows.length} rows`;
  };
  filter.oninput = show;
  show();
  table.parentNode.before(filter, count);
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const texts = new Map(rows.map(row => [row, row.cells[column].textContent]));
    const value = row => parseFloat(texts.get(row).replaceAll(',', ''));
    const known = rows.map(value).filter(number => !isNaN(number));
    const isText = !known.length || head.classList.contains('t');
    head.firstChild.onclick = () => {
      const down = isText ? head.ariaSort == 'ascending' : head.ariaSort != 'descending';
      const sign = down ? -1 : 1;  // unknown numbers come last either way
      const compare = (a, b) => isText ? sign * texts.get(a).localeCompare(texts.get(b))
        : isNaN(value(a)) - isNaN(value(b)) || sign * (value(a) - value(b)) || 0;
      for (const other of head.parentNode.cells) other.ariaSort = null;
      head.ariaSort = down ? 'descending' : 'ascending';
      body.append(...rows.sort(compare));
    };
  });
  for (const chart of document.querySelectorAll('.js-plotly-plot')) chart.on('plotly_click', at => {
    const row = document.getElementById('t' + at.points[0].customdata);
    if (!row) return;
    filter.value = '';
    show();
    location.hash = row.id;
  });
}
"""
