package dev.wardrobe.engine;

import dev.wardrobe.compute.Draw;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/** A listener that remembers, and that a test can hold back. */
class Recorder implements TokenListener {
  final List<Draw.Outcome> scores = Collections.synchronizedList(new ArrayList<>());
  final List<Draw.Outcome> tokens = Collections.synchronizedList(new ArrayList<>());
  final List<Boolean> last = Collections.synchronizedList(new ArrayList<>());
  final CompletableFuture<Finish> end = new CompletableFuture<>();
  volatile boolean ready = true;
  final AtomicInteger admissions = new AtomicInteger();
  final AtomicInteger ends = new AtomicInteger();

  @Override
  public boolean ready() {
    return ready;
  }

  @Override
  public void admitted() {
    admissions.incrementAndGet();
  }

  @Override
  public void promptScored(List<Draw.Outcome> next) {
    next.forEach(score -> scores.add(score.copy()));
  }

  @Override
  public boolean token(Draw.Outcome outcome, boolean endsIt) {
    tokens.add(outcome.copy());
    last.add(endsIt);
    return true;
  }

  @Override
  public void finished(Finish finish) {
    ends.incrementAndGet();
    end.complete(finish);
  }

  /** Says of a sequence whose listener is one of these whether it takes tokens. */
  static void ready(Sequence sequence, boolean ready) {
    ((Recorder) sequence.listener).ready = ready;
    sequence.ready = ready;
  }

  Finish finish() throws Exception {
    return end.get(60, TimeUnit.SECONDS);
  }

  List<Integer> ids() {
    return tokens.stream().map(Draw.Outcome::token).toList();
  }

  /** Every token and every bit of every log-probability. */
  List<Integer> bits() {
    List<Integer> bits = new ArrayList<>();
    for (List<Draw.Outcome> outcomes : List.of(List.copyOf(scores), List.copyOf(tokens))) {
      for (Draw.Outcome outcome : outcomes) {
        bits.add(outcome.token());
        bits.add(Float.floatToRawIntBits(outcome.logprob()));
        for (int top : outcome.topTokens()) {
          bits.add(top);
        }
        for (float top : outcome.topLogprobs()) {
          bits.add(Float.floatToRawIntBits(top));
        }
      }
    }
    return bits;
  }
}
