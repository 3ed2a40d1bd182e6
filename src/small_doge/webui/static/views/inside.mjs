// Which tokens each head still keeps, and the score that dynamic mask attention gives each key.

import { html, useLayoutEffect, useRef } from "../libs.mjs";
import { tokens, visible } from "./parts.mjs";

const SHOWN_TOKENS = 600; // of the strip; the map above it shows all

/** Scores of one head by position; tokens that it no longer keeps are missing. */
function scoresOf(kept, { layer, head }) {
  const { positions, scores } = kept.kept[layer][head];
  return new Map(positions.map((position, index) => [position, scores[index]]));
}

/** Brightness of each score from 0 to 1, by its place between the least and the greatest. */
function scale(values) {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  return (value) => (most > least ? (value - least) / (most - least) : 1);
}

/** All heads at a glance: a row for each, a column for each token. */
function Overview({ app, raw }) {
  const { kept } = raw;
  const canvas = useRef(null);
  const heads = kept.num_kv_heads;
  const rows = kept.num_layers * heads;
  useLayoutEffect(() => {
    const context = canvas.current.getContext("2d");
    const colour = getComputedStyle(canvas.current).color;
    context.clearRect(0, 0, canvas.current.width, canvas.current.height);
    context.fillStyle = colour;
    for (let row = 0; row < rows; row++) {
      const scores = scoresOf(kept, { layer: Math.floor(row / heads), head: row % heads });
      const shade = scale([...scores.values()]);
      for (const [position, score] of scores) {
        context.globalAlpha = 0.2 + 0.8 * shade(score);
        context.fillRect(position, row * 4, 1, 3);
      }
    }
  }, [kept]);
  const onClick = (event) => {
    const row = Math.min(rows - 1, Math.floor((event.offsetY / canvas.current.clientHeight) * rows));
    raw.head = { layer: Math.floor(row / heads), head: row % heads };
    app.changed();
  };
  return html`<canvas ref=${canvas} width=${kept.tokens.length} height=${rows * 4} class="overview" onClick=${onClick} role="img"
    style=${{ height: `${Math.max(24, Math.min(160, rows * 7))}px` }} data-testid="inside-map"
    aria-label="All heads: a row for each, a column for each token. Choose one below."></canvas>`;
}

function Strip({ raw }) {
  const { kept, head } = raw;
  const scores = scoresOf(kept, head);
  const shade = scale([...scores.values()]);
  const first = Math.max(0, kept.tokens.length - SHOWN_TOKENS);
  return html`<ol class="strip" data-testid="strip" aria-label="Tokens, and whether the head keeps them">
    ${kept.tokens.slice(first).map((token, index) => {
      const score = scores.get(first + index);
      const isKept = score !== undefined;
      const title = `${first + index}: ${visible(token.piece)}, ${isKept ? `kept, score ${score.toPrecision(4)}` : "not kept"}`;
      return html`<li key=${index} class=${isKept ? "kept" : "gone"} style=${isKept ? { "--s": shade(score).toFixed(3) } : undefined}
        title=${title} aria-label=${title} data-testid=${isKept ? "kept" : "gone"}>${visible(token.piece)}</li>`;
    })}
  </ol>`;
}

export function InsideView({ app, raw }) {
  const { kept } = raw;
  if (!kept) {
    return html`<section class="inside" aria-label="What heads keep"><p class="none">
      ${raw.isWriting ? "Shown when the text is written." : html`The text has changed. <button type="button" data-testid="look" onClick=${() => raw.look()}>Look</button>`}
    </p></section>`;
  }
  const choose = (name) => (event) => {
    raw.head = { ...raw.head, [name]: Number(event.target.value) };
    app.changed();
  };
  const numbers = (count) => [...Array(count).keys()].map((number) => html`<option value=${number}>${number + 1}</option>`);
  const count = kept.kept[raw.head.layer][raw.head.head].positions.length;
  return html`<section class="inside" aria-label="What heads keep" data-testid="inside">
    <h2>What heads keep</h2>
    <p>Each head keeps the ${kept.keep_window_size} earlier ${kept.keep_window_size === 1 ? "token with the highest score" : "tokens with the highest scores"}, and forgets the others for good.</p>
    <${Overview} app=${app} raw=${raw} />
    <div class="row">
      <label>Layer <select data-testid="layer" value=${raw.head.layer} onChange=${choose("layer")}>${numbers(kept.num_layers)}</select></label>
      <label>Head <select data-testid="head" value=${raw.head.head} onChange=${choose("head")}>${numbers(kept.num_kv_heads)}</select></label>
      <span class="figures" data-testid="kept-count">keeps ${count} of ${tokens(kept.tokens.length)}</span>
    </div>
    <${Strip} raw=${raw} />
    <p class="legend" aria-hidden="true">Score: <span class="scale score"></span> least to greatest; <span class="gone-sample">faded</span>: no longer kept.</p>
  </section>`;
}
