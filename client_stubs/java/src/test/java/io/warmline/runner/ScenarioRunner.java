package io.warmline.runner;

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import io.grpc.ManagedChannel;
import io.grpc.TlsChannelCredentials;
import io.warmline.Client;
import io.warmline.ClientBuilder;
import io.warmline.Retry;
import java.io.File;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.Optional;

/** Plays one scenario through the Java client: see client_stubs/scenarios/README.md. */
public final class ScenarioRunner {
  private static final Gson GSON = new GsonBuilder().serializeNulls().create();

  private ScenarioRunner() {}

  /** The command. */
  public static void main(String[] words) throws IOException {
    Map<String, String> arguments = new HashMap<>();
    for (int at = 0; at < words.length; at += 2) {
      arguments.put(words[at], words[at + 1]);
    }
    String scenario = Files.readString(Path.of(arguments.get("--scenario")));
    JsonObject played =
        play(arguments.get("--address"), JsonParser.parseString(scenario).getAsJsonObject(), arguments.get("--control"));
    new PrintStream(System.out, true, StandardCharsets.UTF_8).println(GSON.toJson(played));
  }

  private static JsonObject play(String address, JsonObject scenario, String control) throws IOException {
    var told = new JsonObject();
    String grpc = ManagedChannel.class.getPackage().getImplementationVersion();
    told.addProperty("language", "Java " + Runtime.version().feature() + ", grpc-java " + grpc);
    try (Client client = client(address, new Fields(scenario.getAsJsonObject("client")))) {
      var steps = new Steps(client, control);
      Optional<String> failure = steps.play(scenario.getAsJsonArray("steps"));
      told.addProperty("ok", failure.isEmpty());
      told.addProperty("failure", failure.orElse(null));
      var results = new JsonObject();
      steps.turns.forEach((name, turn) -> results.add(name, Objects.result(turn)));
      told.add("turns", results);
      steps.end();
    }
    return told;
  }

  private static Client client(String address, Fields settings) throws IOException {
    ClientBuilder client = Client.builder(address);
    settings.set("max_tries", JsonElement::getAsInt, tries -> client.retry(Retry.DEFAULT.withMaxTries(tries)));
    settings.set("token", JsonElement::getAsString, (String token) -> client.token(token));
    settings.set("max_message_bytes", JsonElement::getAsInt, client::maxMessageBytes);
    Optional<Duration> keepalive = settings.seconds("keepalive_s");
    Optional<Duration> keepaliveTimeout = settings.seconds("keepalive_timeout_s");
    keepalive.ifPresent(interval -> client.keepalive(interval, keepaliveTimeout.orElseThrow()));
    Optional<JsonElement> tls = settings.take("tls");
    settings.end();
    if (tls.isPresent() && tls.get() instanceof JsonObject files) {
      tls(client, new Fields(files));
    } else if (tls.isPresent() && tls.get().getAsBoolean()) {
      client.tls();
    }
    return client.build();
  }

  private static void tls(ClientBuilder client, Fields files) throws IOException {
    var credentials = TlsChannelCredentials.newBuilder();
    Optional<File> ca = files.text("ca").map(File::new);
    Optional<File> certificate = files.text("cert").map(File::new);
    Optional<File> key = files.text("key").map(File::new);
    files.text("server_name").ifPresent(client::serverName);
    files.end();
    if (ca.isPresent()) {
      credentials.trustManager(ca.get());
    }
    if (certificate.isPresent()) {
      credentials.keyManager(certificate.get(), key.orElseThrow());
    }
    client.tls(credentials.build());
  }
}
