package warmline

import (
	"encoding/json"

	"github.com/warmline/warmline/client_stubs/go/warmlinev1"
)

// An Item is one entry of a conversation, as the contract has it.
type Item = warmlinev1.Item

// User is a user's message of one text.
func User(text string) *Item { return message("user", text) }

// Developer is a developer's message of one text.
func Developer(text string) *Item { return message("developer", text) }

// System is a system message of one text.
func System(text string) *Item { return message("system", text) }

// Assistant is an answer of the model, as one text.
func Assistant(text string) *Item { return message("assistant", text) }

// FunctionOutput is the output of a function call; callID is the call's.
func FunctionOutput(callID, output string) *Item {
	return &Item{Content: &warmlinev1.Item_FunctionCallOutput{
		FunctionCallOutput: &warmlinev1.FunctionCallOutput{CallId: callID, Output: output},
	}}
}

// CustomToolOutput is the output of a custom tool's call; callID is the call's.
func CustomToolOutput(callID, output string) *Item {
	item, err := json.Marshal(map[string]string{"type": "custom_tool_call_output", "call_id": callID, "output": output})
	if err != nil {
		panic(err) // Cannot happen: strings have a JSON form.
	}
	return JSON(item)
}

// JSON is an item verbatim: one JSON object in UTF-8, sent as it is.
func JSON(item []byte) *Item {
	return &Item{Content: &warmlinev1.Item_Json{Json: item}}
}

func message(role, text string) *Item {
	return &Item{Content: &warmlinev1.Item_Message{Message: &warmlinev1.TextMessage{Role: role, Text: text}}}
}
