package main

import (
	"crypto/sha1"
	"encoding/base64"
)

// acceptKey is RFC 6455's answer to a handshake's key.
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}
