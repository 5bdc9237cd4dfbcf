// The owner's commands: each asks for the token and a confirmation, and says what came of it.
import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { Section } from "./parts.js";

const COMMANDS = {
  halt: ["Halt", "Nothing trades until it is resumed. What is open stays open."],
  reduce: ["Reduce", "Only closing trades until it is resumed."],
  resume: ["Resume", "Ends what was ordered before, and every restriction whose cause is gone."],
  flatten: ["Flatten", "Everything is closed from the next bar on, at the market, and nothing is opened until it is resumed."],
  close: ["Close", "Everything on this underlying is closed from the next bar on, at the market."],
};
const GRAVE = new Set(["flatten", "close"]);

/** Ask for a command from anywhere on the page. */
export const command = (name, symbol = "") => dispatchEvent(new CustomEvent("command", { detail: { name, symbol } }));

/** A key of its own, so that a command which is sent twice is obeyed once. */
function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return `page-${[...bytes].map((each) => each.toString(16).padStart(2, "0")).join("")}`;
}

async function send({ name, symbol, key }, token, why) {
  const response = await fetch(`control/${name}`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: JSON.stringify({ by: "page", why, key, ...(symbol ? { symbol } : {}) }),
  });
  const body = await response.json().catch(() => ({}));
  return { done: response.ok, said: body.said || body.reason || `the server answers ${response.status}` };
}

export function Controls({ status }) {
  const [asked, setAsked] = useState(null);
  const [answer, setAnswer] = useState(null);
  const [busy, setBusy] = useState(false);
  const token = useRef(null);
  const dialog = useRef(null);
  useEffect(() => {
    const ask = ({ detail }) => {
      setAnswer(null);
      setAsked({ ...detail, key: newKey() });
    };
    addEventListener("command", ask);
    return () => removeEventListener("command", ask);
  }, []);
  useEffect(() => {
    if (asked && !dialog.current.open) {
      dialog.current.showModal();
      token.current?.focus();
    }
  }, [asked]);
  const submit = async (event) => {
    event.preventDefault();
    const form = new FormData(event.target);
    setBusy(true);
    setAnswer(null);
    try {
      const told = await send(asked, form.get("token"), form.get("why"));
      setAnswer(told);
      if (told.done) dialog.current.close();
    } catch (error) {
      setAnswer({ done: false, said: `it did not reach the server (${error.message}): try again, it is obeyed once` });
    }
    setBusy(false);
  };
  const [title, says] = COMMANDS[asked?.name] ?? ["", ""];
  const what = `${title}${asked?.symbol ? ` ${asked.symbol}` : ""}`;
  const state = status.account.trading_state;
  return html`<${Section} id="controls" title="Controls">
    <p class="said">The account is <strong>${state}</strong>${status.account.trading_state_reason ? `: ${status.account.trading_state_reason}` : "."}</p>
    <div class="buttons">${["halt", "reduce", "resume", "flatten"].map(
      (name) => html`<button type="button" class=${GRAVE.has(name) ? "grave" : ""} onClick=${() => command(name)}>${COMMANDS[name][0]}…</button>`,
    )}</div>
    <p class=${`answer ${answer?.done ? "good" : ""}`} role="status">${answer?.done ? `Done: ${answer.said}` : ""}</p>
    <dialog ref=${dialog} aria-labelledby="dialog-title" aria-describedby="dialog-says" onClose=${() => setAsked(null)}>
      ${asked
        ? html`<form onSubmit=${submit} autocomplete="off">
            <h3 id="dialog-title">${what}?</h3>
            <p id="dialog-says">${says}</p>
            <label>The owner's token <small>CONTROL_TOKEN, where the application runs</small>
              <input type="password" name="token" required ref=${token} autocomplete="off" /></label>
            <label>Why <small>for the journal; may be empty</small><input name="why" maxlength="200" /></label>
            ${GRAVE.has(asked.name)
              ? html`<label class="check"><input type="checkbox" required /> I want positions closed at the market.</label>`
              : null}
            <p class="answer bad" role="alert">${answer && !answer.done ? `Not done: ${answer.said}` : ""}</p>
            <div class="buttons">
              <button type="submit" class=${GRAVE.has(asked.name) ? "grave" : "main"} disabled=${busy}>${busy ? "Asking…" : what}</button>
              <button type="button" class="quiet" onClick=${() => dialog.current.close()}>Cancel</button>
            </div>
          </form>`
        : null}
    </dialog>
  </${Section}>`;
}
