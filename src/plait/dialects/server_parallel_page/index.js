"use strict";

const talk = document.getElementById("talk");
const say = document.getElementById("say");
const system = document.getElementById("system");
const names = { user_name: "User:", assistant_name: "Assistant:" };
let said = ""; // all that follows the system prompt, which ends with the user's name
let next = null; // a system prompt that the next message brings along

async function learnNames() {
  Object.assign(names, await (await fetch("props")).json());
}

async function* contents(response) {
  const decoder = new TextDecoder();
  const reader = response.body.getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + decoder.decode(value, { stream: true })).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      if (block.startsWith("data: ")) yield JSON.parse(block.slice(6)).content;
    }
  }
}

function show(text) {
  talk.textContent += text;
  say.scrollIntoView({ block: "end" });
}

async function ask(text) {
  if (next) {
    said = talk.textContent = "";
    names.user_name = next.anti_prompt;
    names.assistant_name = next.assistant_name;
  }
  said += ` ${text}\n${names.assistant_name}`;
  show(`${names.user_name} ${text}\n${names.assistant_name}`);
  const prompt = { prompt: said, temperature: Number(say.elements.temperature.value) };
  const response = await fetch("completion", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...prompt, ...next }),
  });
  next = null;
  if (!response.ok) {
    show(response.status === 404 ? " [all slots are busy]\n" : ` [error ${response.status}]\n`);
    return;
  }
  let answer = "";
  for await (const content of contents(response)) {
    answer += content;
    show(content);
  }
  // Whoever ends an answer with the user's name leaves it to the next message to say it.
  const end = answer.lastIndexOf(names.user_name);
  const kept = (end < 0 ? answer : answer.slice(0, end)).trimEnd();
  talk.textContent = talk.textContent.slice(0, talk.textContent.length - answer.length) + kept + "\n";
  said += `${kept}\n${names.user_name}`;
}

say.addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = say.elements.text.value;
  const button = say.querySelector("button");
  say.elements.text.value = "";
  button.disabled = true;
  try {
    await ask(text);
  } catch (error) {
    show(` [${error.message}]\n`);
  } finally {
    button.disabled = false;
  }
});

system.addEventListener("change", () => {
  if (system.checkValidity()) next = Object.fromEntries(new FormData(system));
});

learnNames();
