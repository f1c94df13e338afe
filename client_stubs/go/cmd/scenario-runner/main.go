// Command scenario-runner plays one scenario through the Go client: see client_stubs/scenarios/README.md.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"

	"google.golang.org/grpc"

	warmline "github.com/warmline/warmline/client_stubs/go"
)

// object is a JSON object.
type object = map[string]any

type scenario struct {
	Client clientSettings
	Steps  []map[string]json.RawMessage
}

type clientSettings struct {
	MaxTries          int     `json:"max_tries"`
	Token             string  `json:"token"`
	MaxMessageBytes   int     `json:"max_message_bytes"`
	KeepaliveS        float64 `json:"keepalive_s"`
	KeepaliveTimeoutS float64 `json:"keepalive_timeout_s"`
	TLS               *struct {
		CA, Cert, Key string
		ServerName    string `json:"server_name"`
	}
}

func main() {
	address := flag.String("address", "", "where the server listens")
	file := flag.String("scenario", "", "the scenario, JSON")
	control := flag.String("control", "", "URL of the control endpoint")
	flag.Parse()
	played := object{"ok": false, "language": runtime.Version() + ", grpc-go " + grpc.Version}
	turns, err := play(*address, *file, *control)
	played["turns"] = turns
	if err == nil {
		played["ok"] = true
	} else {
		played["failure"] = err.Error()
	}
	if err := json.NewEncoder(os.Stdout).Encode(played); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// play plays the scenario; it returns the result objects of all turns, and what went wrong in the first step that did.
func play(address, file, control string) (object, error) {
	var wanted scenario
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if err := strict(text, &struct {
		Name *string
		*scenario
	}{scenario: &wanted}); err != nil {
		return nil, err
	}
	client, err := open(address, wanted.Client)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	runner := &runner{
		client: client, control: control, sessions: map[string]*warmline.Session{}, turns: map[string]*turn{},
	}
	err = runner.play(context.Background(), wanted.Steps)
	results := runner.results()
	runner.close()
	return results, err
}

func open(address string, settings clientSettings) (*warmline.Client, error) {
	var options []warmline.ClientOption
	if settings.MaxTries > 0 {
		retry := warmline.DefaultRetry
		retry.MaxTries = settings.MaxTries
		options = append(options, warmline.WithRetry(retry))
	}
	if settings.Token != "" {
		options = append(options, warmline.WithToken(settings.Token))
	}
	if settings.MaxMessageBytes > 0 {
		options = append(options, warmline.WithMaxMessageBytes(settings.MaxMessageBytes))
	}
	if settings.KeepaliveS > 0 {
		options = append(options, warmline.WithKeepalive(seconds(settings.KeepaliveS), seconds(settings.KeepaliveTimeoutS)))
	}
	if settings.TLS != nil {
		pem, err := os.ReadFile(settings.TLS.CA)
		if err != nil {
			return nil, err
		}
		config := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: settings.TLS.ServerName}
		config.RootCAs.AppendCertsFromPEM(pem)
		if settings.TLS.Cert != "" {
			pair, err := tls.LoadX509KeyPair(settings.TLS.Cert, settings.TLS.Key)
			if err != nil {
				return nil, err
			}
			config.Certificates = []tls.Certificate{pair}
		}
		options = append(options, warmline.WithTLS(config))
	}
	return warmline.NewClient(address, options...)
}
