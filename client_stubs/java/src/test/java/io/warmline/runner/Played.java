package io.warmline.runner;

import io.warmline.Turn;
import io.warmline.v1.Item;
import io.warmline.v1.TurnEvent;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/** A turn that was sent, and what its caller was given. */
final class Played {
  final Turn turn;
  final List<Item> sent;
  final Map<String, Integer> events = new TreeMap<>();
  int payloads;

  Played(Turn turn, List<Item> sent) {
    this.turn = turn;
    this.sent = sent;
  }

  /** Reads to the n-th event of that name, or to the end where it is blank. */
  void read(String event, int count) {
    int left = count;
    for (TurnEvent found : turn) {
      String kind = found.getEventCase().name().toLowerCase();
      events.merge(kind, 1, Integer::sum);
      payloads += found.hasPayloadJson() ? 1 : 0;
      if (kind.equals(event) && --left == 0) {
        return;
      }
    }
    if (!event.isEmpty()) {
      throw new StepException("the turn ended before " + event + "; there were " + events);
    }
  }
}
