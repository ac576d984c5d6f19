// One scenario of openai-node: `node client.mjs NAME BASE_URL ROOT`, where ROOT holds
// node_modules. Prints what it saw as JSON.
import { createRequire } from "node:module";

const [scenario, baseURL, root] = process.argv.slice(2);
const require = createRequire(`${root}/package.json`);
const { OpenAI } = require("openai");
const { ResponsesWS } = require("openai/resources/responses/ws");

const client = new OpenAI({ baseURL, apiKey: "client" });
const model = "gpt-5.5";
const tools = [
  {
    type: "function",
    name: "exec_command",
    parameters: {
      type: "object",
      properties: { cmd: { type: "string" } },
      required: ["cmd"],
      additionalProperties: false,
    },
    strict: true,
  },
];

const create = (fields) => client.responses.create({ model, input: "hi", ...fields });

async function types(stream) {
  const seen = [];
  for await (const event of stream) seen.push(event);
  return seen;
}

function said(error) {
  const { status, code, message } = error;
  return { class: error.constructor.name, status, code, message, id: error.requestID };
}

const refusal = async (promise) => {
  try {
    await promise;
  } catch (error) {
    return said(error);
  }
};

// Frames of one turn on a socket, up to the one that ends it.
async function turn(socket, fields) {
  socket.send({ type: "response.create", model, input: "hi", ...fields });
  for await (const message of socket.stream()) {
    if (message.type === "error") return { type: "error", said: `${message.error}` };
    if (message.type === "close") return { type: "close", code: message.code };
    if (message.type !== "message") continue;
    if (message.message.type === "response.completed") return message.message;
  }
}

const scenarios = {
  async objects() {
    const made = await create();
    const found = await client.responses.retrieve(made.id);
    const items = await client.responses.inputItems.list(made.id);
    await client.responses.delete(made.id);
    const gone = await refusal(client.responses.retrieve(made.id));
    return { text: made.output_text, same: found.id === made.id, item: items.data[0], gone };
  },

  async stream() {
    return (await types(await create({ stream: true }))).map((event) => event.type);
  },

  async tool() {
    const asked = await create({ input: "please run-tool", tools });
    const call = asked.output.find((item) => item.type === "function_call");
    const output = { type: "function_call_output", call_id: call.call_id, output: "hi" };
    const answered = await create({ previous_response_id: asked.id, tools, input: [output] });
    return answered.output_text;
  },

  async background() {
    const metadata = { simulate_duration_ms: "60000" };
    const job = await create({ background: true, metadata });
    return (await client.responses.cancel(job.id)).status;
  },

  async conversation() {
    const conversation = await client.conversations.create({});
    for (let n = 0; n < 4; n++) await create({ conversation: conversation.id });
    return (await client.conversations.items.list(conversation.id)).data.length;
  },

  async chain() {
    let previous;
    for (let n = 0; n < 5; n++) {
      previous = (await create({ previous_response_id: previous })).id;
    }
    return previous;
  },

  async reasoning() {
    const include = ["reasoning.encrypted_content"];
    const made = await create({ store: false, include });
    const more = { role: "user", content: "more" };
    const texts = [];
    for (let n = 0; n < 4; n++) {
      const next = await create({ store: false, input: [...made.output, more] });
      texts.push(next.output_text);
    }
    return { sealed: made.output.some((item) => item.encrypted_content), texts };
  },

  async error() {
    const headers = { "x-pool-id": "nowhere" };
    const ours = refusal(client.responses.create({ model, input: "hi" }, { headers }));
    const upstreams = refusal(create({ previous_response_id: "resp_nobody" }));
    return { ours: await ours, upstreams: await upstreams };
  },

  async wait() {
    const began = performance.now();
    const { status } = await create();
    return { status, seconds: (performance.now() - began) / 1000 };
  },

  async cut() {
    const seen = await types(await create({ stream: true }));
    return seen.at(-1);
  },

  async abort() {
    const stream = await create({ stream: true });
    for await (const event of stream) {
      stream.controller.abort();
      return event.type;
    }
  },

  async socket() {
    const socket = new ResponsesWS(client);
    const first = await turn(socket, { store: false, input: "please run-tool", tools });
    const call = first.response.output.find((item) => item.type === "function_call");
    const output = { type: "function_call_output", call_id: call.call_id, output: "hi" };
    const previous_response_id = first.response.id;
    const second = await turn(socket, {
      store: false, tools, input: [output], previous_response_id,
    });
    socket.close();
    return [previous_response_id, second.response];
  },
};

console.log(JSON.stringify(await scenarios[scenario]()));
