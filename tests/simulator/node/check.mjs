// One scenario of the OpenAI Node SDK against a simulator. Prints what the client saw, as JSON.
// Usage: node check.mjs SCENARIO BASE_URL

import OpenAI from "openai";
import { ResponsesWS } from "openai/resources/responses/ws";

const [scenario, baseURL] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "sk-simulator" });
const model = "sim-large";
const tools = [
  {
    type: "function",
    name: "get_weather",
    strict: true,
    parameters: {
      type: "object",
      properties: { city: { type: "string" } },
      required: ["city"],
      additionalProperties: false,
    },
  },
];
const question = "what is the weather in Oslo";
const answer = (call) => [{ type: "function_call_output", call_id: call.call_id, output: "rain" }];

async function stream() {
  const types = [];
  const running = client.responses.stream({ model, input: "tell me about herons" });
  for await (const event of running) types.push(event.type);
  const final = await running.finalResponse();
  return { types: [...new Set(types)], text: final.output_text, id: final.id, usage: final.usage.total_tokens };
}

async function create() {
  const { data, request_id } = await client.responses.create({ model, input: "hi" }).withResponse();
  return { id: data.id, status: data.status, request_id };
}

async function toolsOverHttp() {
  const first = await client.responses.create({ model, input: question, tools });
  const call = first.output[0];
  const second = await client.responses.create({ model, previous_response_id: first.id, input: answer(call), tools });
  return { name: call.name, arguments: call.arguments, text: second.output_text };
}

async function toolsOverWebsocket() {
  const ws = new ResponsesWS(client);
  const events = ws.stream();
  const completed = async () => {
    // By hand, as leaving a `for await` loop would end the iterator for good.
    for (;;) {
      const { value: event, done } = await events.next();
      if (done) throw new Error("the socket ended before response.completed");
      if (event.type === "error") throw event.error;
      if (event.type === "message" && event.message.type === "response.completed") return event.message.response;
    }
  };
  ws.send({ type: "response.create", model, input: question, tools, store: false });
  const first = await completed();
  const call = first.output[0];
  ws.send({ type: "response.create", model, previous_response_id: first.id, input: answer(call), tools, store: false });
  const second = await completed();
  ws.close();
  return { name: call.name, previous: second.previous_response_id === first.id, text: second.output[0].content[0].text };
}

async function websocketError() {
  const ws = new ResponsesWS(client);
  ws.send({ type: "response.create", model, input: "hi", previous_response_id: "resp_none" });
  const error = await new Promise((resolve) => ws.on("error", resolve));
  ws.close();
  return { name: error.constructor.name, code: error.error?.error?.code ?? error.error?.code, message: error.message };
}

async function errors() {
  const seen = [];
  for (let number = 0; number < 8; number += 1) {
    try {
      await client.responses.create({ model, input: "hi" }, { maxRetries: 0 });
    } catch (error) {
      const { status, code, param, requestID } = error;
      seen.push({ name: error.constructor.name, status, code, param, request_id: requestID });
    }
  }
  return seen;
}

async function retries() {
  const response = await client.responses.create({ model, input: "hi" });
  return { status: response.status };
}

async function models() {
  const names = [];
  for await (const each of client.models.list()) names.push(each.id);
  return names;
}

const scenarios = { stream, create, toolsOverHttp, toolsOverWebsocket, websocketError, errors, retries, models };
console.log(JSON.stringify(await scenarios[scenario]()));
