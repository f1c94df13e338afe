package io.warmline;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ForwardingClientCall.SimpleForwardingClientCall;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import java.util.Optional;
import java.util.function.Supplier;

/** What every call carries, and its limit. */
record Outgoing(Optional<Supplier<String>> token, TraceContext trace, int maxMessageBytes, Redial redial)
    implements ClientInterceptor {
  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

  @Override
  public <Q, A> ClientCall<Q, A> interceptCall(MethodDescriptor<Q, A> method, CallOptions options, Channel next) {
    redial.beforeCall();
    CallOptions limited =
        options.getMaxOutboundMessageSize() == null ? options.withMaxOutboundMessageSize(maxMessageBytes) : options;
    return new SimpleForwardingClientCall<>(next.newCall(method, limited)) {
      @Override
      public void start(Listener<A> listener, Metadata headers) {
        trace.inject(headers);
        token.ifPresent(source -> headers.put(AUTHORIZATION, "Bearer " + current(source)));
        super.start(listener, headers);
      }
    };
  }

  private static String current(Supplier<String> source) {
    String token = source.get().strip();
    // Said here, without the token: gRPC would put it into its error.
    if (!token.chars().allMatch(letter -> letter >= ' ' && letter <= '~')) {
      throw WarmlineException.here(
          WarmlineException.Unauthenticated::new,
          "send token: it has characters that a header cannot carry",
          CallFacts.NONE);
    }
    return token;
  }
}
