package io.warmline;

import com.google.protobuf.MessageLite;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ForwardingClientCall.SimpleForwardingClientCall;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import java.util.Optional;
import java.util.function.Supplier;

/**
 * What every call carries, and its limit. It fails as gRPC's own calls do, for stubs that are not ours.
 *
 * <p>gRPC's own limit is not used: a message that is too long for it, sent before the connection is there, leaves the call
 * hanging for ever (measured with 1.85.1).
 */
record Outgoing(Optional<Supplier<String>> token, TraceContext trace, int maxMessageBytes, Redial redial)
    implements ClientInterceptor {
  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

  @Override
  public <Q, A> ClientCall<Q, A> interceptCall(MethodDescriptor<Q, A> method, CallOptions options, Channel next) {
    redial.beforeCall();
    return new SimpleForwardingClientCall<>(next.newCall(method, options)) {
      @Override
      public void start(Listener<A> listener, Metadata headers) {
        trace.inject(headers);
        token.ifPresent(source -> headers.put(AUTHORIZATION, "Bearer " + current(source)));
        super.start(listener, headers);
      }

      @Override
      public void sendMessage(Q message) {
        checkSize(message);
        super.sendMessage(message);
      }
    };
  }

  private void checkSize(Object message) {
    if (message instanceof MessageLite lite && lite.getSerializedSize() > maxMessageBytes) {
      String found = "send message: found " + lite.getSerializedSize() + " bytes, the limit is " + maxMessageBytes;
      throw Status.RESOURCE_EXHAUSTED.withDescription(found).asRuntimeException();
    }
  }

  private static String current(Supplier<String> source) {
    String token = source.get().strip();
    // Said here, without the token: gRPC would put it into its error.
    if (!token.chars().allMatch(letter -> letter >= ' ' && letter <= '~')) {
      String text = "send token: it has characters that a header cannot carry";
      throw Status.UNAUTHENTICATED.withDescription(text).asRuntimeException();
    }
    return token;
  }
}
