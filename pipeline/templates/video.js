const reel = document.getElementById("reel"), chart = document.getElementById("chart");
const head = document.getElementById("head"), readout = document.getElementById("readout");
const key = readout?.innerHTML;
const edits = [...document.querySelectorAll(".edit")].map(({ dataset }) => ({ clip: dataset.clip, at: +dataset.at, from: +dataset.from, to: +dataset.to }));

function play(at) {
  reel.currentTime = at;
  reel.play().catch(() => {});
  reel.scrollIntoView({ block: "nearest" });
}

function tell(span) {
  const { clip, span: times, score, why } = span.dataset, name = document.createElement("b");
  name.textContent = `Clip ${clip}`;
  readout.replaceChildren(name, ` ${times} · score ${score}${why ? " · " + why : ""}`);
}

document.addEventListener("click", event => {
  const target = event.target.closest("[data-at], .clipspan");
  if (!target) return;
  if (reel && target.dataset.at !== undefined) play(+target.dataset.at);
  else location.hash = `clip-${target.dataset.clip}`;
});

for (const kind of ["pointerover", "focusin"]) chart?.addEventListener(kind, event => {
  if (event.target.matches(".clipspan")) tell(event.target);
});
for (const kind of ["pointerleave", "focusout"]) chart?.addEventListener(kind, () => { readout.innerHTML = key; });

// Where the reel is in the source: the playhead of the chart.
function follow() {
  const edit = edits.findLast(({ at }) => at <= reel.currentTime + 0.001);
  document.querySelectorAll(".now").forEach(node => node.classList.remove("now"));
  if (!edit) return;
  const at = Math.min(edit.from + reel.currentTime - edit.at, edit.to);
  head.hidden = false;
  head.style.left = `${100 * at / +chart.dataset.duration}%`;
  document.querySelector(`.clipspan[data-clip="${edit.clip}"]`)?.classList.add("now");
  document.getElementById(`clip-${edit.clip}`)?.classList.add("now");
}
if (chart) for (const kind of ["timeupdate", "seeked"]) reel?.addEventListener(kind, follow);
