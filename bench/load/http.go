package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

func newHTTPClient(plan Plan) *http.Client {
	return &http.Client{Transport: &http.Transport{
		MaxIdleConns: plan.Workers * 2, MaxIdleConnsPerHost: plan.Workers * 2, DisableCompression: true, Proxy: nil,
	}}
}

// postLine runs turns as POSTs answered with server-sent events; one kept connection per worker.
type postLine struct {
	client *http.Client
	plan   Plan
	body   []byte
	id     string
	reader *bufio.Reader
}

func newPostLine(plan Plan, client *http.Client, number int) *postLine {
	return &postLine{
		client: client, plan: plan, body: plan.body(plan.conversation()), id: fmt.Sprintf("%s-%d", plan.Prefix, number),
		reader: bufio.NewReaderSize(nil, 64<<10),
	}
}

func (l *postLine) turn(ctx context.Context, r *reading) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, l.plan.Target, bytes.NewReader(l.body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "text/event-stream")
	for name, value := range l.plan.Headers {
		request.Header.Set(name, value)
	}
	if l.plan.SessionHeader != "" {
		request.Header.Set(l.plan.SessionHeader, l.id)
	}
	response, err := l.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(response.Body, 300))
		return fmt.Errorf("status %d: %s", response.StatusCode, body)
	}
	l.reader.Reset(response.Body)
	for {
		text, err := l.reader.ReadSlice('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		payload, isData := bytes.CutPrefix(text, []byte("data:"))
		payload = bytes.TrimSpace(payload)
		if isData && !bytes.Equal(payload, []byte("[DONE]")) {
			r.raw(time.Now(), payload)
		}
	}
}

func (l *postLine) prepare(context.Context) error { return nil }
func (l *postLine) finish(context.Context) error  { return nil }
func (l *postLine) close()                        {}
