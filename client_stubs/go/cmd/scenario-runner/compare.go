package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/reflect/protoreflect"

	warmline "github.com/warmline/warmline/client_stubs/go"
	"github.com/warmline/warmline/client_stubs/go/warmlinev1"
)

// memberName is the name of the event's oneof member.
func memberName(event *warmlinev1.TurnEvent) string {
	message := event.ProtoReflect()
	member := message.WhichOneof(message.Descriptor().Oneofs().ByName("event"))
	return string(member.Name())
}

// resultObject is a turn's outcome so far as the result object.
func resultObject(t *turn) object {
	result := t.Snapshot()
	events := object{}
	for kind, count := range t.events {
		events[kind] = float64(count)
	}
	items, functionCalls, customToolCalls := []any{}, []any{}, []any{}
	for _, item := range result.Items {
		items = append(items, string(item.GetJson()))
	}
	for _, call := range result.FunctionCalls {
		functionCalls = append(functionCalls,
			object{"call_id": call.CallID, "name": call.Name, "arguments": call.Arguments})
	}
	for _, call := range result.CustomToolCalls {
		customToolCalls = append(customToolCalls, object{"call_id": call.CallID, "name": call.Name, "input": call.Input})
	}
	return object{
		"ending": string(result.Ending), "text": result.Text, "text_bytes": float64(len(result.Text)), "items": items,
		"function_calls": functionCalls, "custom_tool_calls": customToolCalls,
		"turn_id": result.TurnID, "request_id": result.RequestID, "conversation_id": result.ConversationID,
		"response_id": result.ResponseID, "upstream_request_id": known(result.UpstreamRequestID),
		"usage": usageObject(result.Usage), "end_turn": pointed(result.EndTurn),
		"incomplete_reason": known(result.IncompleteReason), "history_position": float64(result.HistoryPosition),
		"attempts":      float64(result.Attempts),
		"slot_outcome":  enumName(result.Attempt.GetSlotOutcome(), "SLOT_OUTCOME_"),
		"transport":     enumName(result.Attempt.GetTransport(), "TRANSPORT_"),
		"full_reason":   enumName(result.Attempt.GetFullReason(), "FULL_REASON_"),
		"connection_id": result.Attempt.GetConnectionId(), "incremental": result.Attempt.GetIncremental(),
		"fell_back": known(result.FellBack), "server_model": result.ServerModel,
		"unknown_events": float64(result.UnknownEvents), "unknown_values": float64(result.UnknownValues),
		"events": events, "payloads": float64(t.payloads),
	}
}

// errorObject is an error as the error object.
func errorObject(e *warmline.Error) object {
	fields, quotas := []any{}, []any{}
	for _, violation := range e.FieldViolations {
		fields = append(fields, violation.Field)
	}
	for _, violation := range e.QuotaViolations {
		quotas = append(quotas, violation.Subject)
	}
	made := object{
		"kind": string(e.Kind), "reason": e.Reason, "turn_id": e.TurnID, "request_id": e.RequestID,
		"response_id": e.ResponseID, "upstream_request_id": known(e.UpstreamRequestID), "fields": fields, "quotas": quotas,
	}
	if e.Code != codes.OK {
		made["code"] = codeName(e.Code)
	}
	if e.Attempts > 0 {
		made["attempts"] = float64(e.Attempts)
	}
	if e.RetryAfter != nil {
		made["retry_after_s"] = e.RetryAfter.Seconds()
	}
	if words := e.Upstream; words != nil {
		upstream := object{
			"code": words.GetCode(), "type": words.GetType(), "param": words.GetParam(), "message": words.GetMessage(),
		}
		if words.Status != nil {
			upstream["status"] = float64(words.GetStatus())
		}
		made["upstream"] = upstream
	}
	return made
}

// codeName is the status code's name in the contract: gRPC for Go spells it its own way.
func codeName(code codes.Code) string {
	if code == codes.Canceled {
		return "CANCELLED"
	}
	var name strings.Builder
	for at, letter := range code.String() {
		if at > 0 && letter >= 'A' && letter <= 'Z' {
			name.WriteByte('_')
		}
		name.WriteRune(letter)
	}
	return strings.ToUpper(name.String())
}

// known is null for what is not known.
func known(text string) any {
	if text == "" {
		return nil
	}
	return text
}

func pointed(value *bool) any {
	if value == nil {
		return nil
	}
	return *value
}

func usageObject(usage *warmlinev1.Usage) any {
	if usage == nil {
		return nil
	}
	made := object{}
	fields := usage.ProtoReflect().Descriptor().Fields()
	for number := range fields.Len() {
		field := fields.Get(number)
		made[string(field.Name())] = float64(usage.ProtoReflect().Get(field).Int())
	}
	return made
}

// enumName is a value's name without its prefix, blank for UNSPECIFIED.
func enumName(value interface {
	protoreflect.Enum
	fmt.Stringer
}, prefix string) string {
	if value.Number() == 0 {
		return ""
	}
	return strings.TrimPrefix(value.String(), prefix)
}

// compare says where what was found is not as expected.
func compare(found, expected any, path string) error {
	asExpected := true
	switch expected := expected.(type) {
	case object:
		if values, is := expected["$any"].([]any); is {
			asExpected = slices.ContainsFunc(values, func(value any) bool { return reflect.DeepEqual(found, value) })
		} else if present, is := expected["$present"].(bool); is {
			asExpected = isPresent(found) == present
		} else {
			return compareObjects(found, expected, path)
		}
	case []any:
		list, is := found.([]any)
		if asExpected = is && len(list) == len(expected); asExpected {
			for number := range expected {
				if err := compare(list[number], expected[number], fmt.Sprintf("%s[%d]", path, number)); err != nil {
					return err
				}
			}
		}
	default:
		asExpected = reflect.DeepEqual(found, expected)
	}
	if !asExpected {
		return fmt.Errorf("%s: found %#v, expected %#v", path, found, expected)
	}
	return nil
}

func compareObjects(found any, expected object, path string) error {
	members, is := found.(object)
	if !is {
		return fmt.Errorf("%s: found %#v, expected an object", path, found)
	}
	for name, value := range expected {
		if err := compare(members[name], value, strings.TrimPrefix(path+"."+name, ".")); err != nil {
			return err
		}
	}
	return nil
}

func isPresent(found any) bool {
	return found != nil && !reflect.ValueOf(found).IsZero()
}
