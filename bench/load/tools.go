package main

import (
	"encoding/json"
	"fmt"
	"strings"
)

// toolOutput answers a function call with an output of `bytes` characters.
func toolOutput(call []byte, bytes int) []byte {
	var item struct {
		CallID string `json:"call_id"`
	}
	_ = json.Unmarshal(call, &item)
	return fmt.Appendf(nil, `{"type":"function_call_output","call_id":"%s","output":"%s"}`, item.CallID, strings.Repeat("o", max(1, bytes)))
}
