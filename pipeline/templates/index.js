const find = document.getElementById("find"), count = document.getElementById("count");
const items = [...document.querySelectorAll(".item")].map(node => ({ node, text: node.textContent.toLowerCase(), status: node.dataset.status }));

function filter() {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  const show = document.querySelector("[name=show]:checked")?.value ?? "";
  let left = 0;
  for (const { node, text, status } of items) {
    const fits = (!show || status === show) && words.every(word => text.includes(word));
    node.hidden = !fits;
    left += fits;
  }
  count.textContent = left === items.length ? "" : `${left} of ${items.length}`;
}

document.querySelector(".bar").addEventListener("input", filter);
document.querySelector(".bar").addEventListener("submit", event => event.preventDefault());
document.addEventListener("keydown", event => {
  if (event.key === "/" && document.activeElement !== find) { event.preventDefault(); find.focus(); }
});
filter();
