package dev.wardrobe.http;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.engine.GenerationTask;
import dev.wardrobe.http.AnswerForm.ChoiceForm;
import dev.wardrobe.serve.AnswerCollector;
import dev.wardrobe.serve.AnswerListener;
import dev.wardrobe.serve.RequestException;
import dev.wardrobe.serve.Served;
import dev.wardrobe.serve.Turn;
import dev.wardrobe.v1.AppliedAdapter;
import dev.wardrobe.v1.Choice;
import dev.wardrobe.v1.FinishReason;
import dev.wardrobe.v1.GenerateEvent;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.GenerateResponse;
import dev.wardrobe.v1.Usage;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;

/**
 * Answers to one or several prompts, whole or as a stream: a turn for each prompt, all of which
 * come to their end, or none.
 */
final class Generation {
  private static final String DIGEST = "x-wardrobe-adapter-digest";

  private final Served served;
  private final ModelNames names;
  private final Exchange exchange;
  private final Asked asked;
  private final AnswerForm form;
  private final long created = System.currentTimeMillis() / 1000;

  // Guarded by this.
  private final List<Turn> turns = new ArrayList<>();
  private boolean over;

  /**
   * What was asked for.
   *
   * @param requests one for each prompt, which differ in nothing else
   * @param model as it was written, or null
   */
  record Asked(List<GenerateRequest> requests, @Nullable String model) {
    Asked {
      requests = List.copyOf(requests);
    }

    int answers() {
      GenerateRequest any = requests.getFirst();
      return any.hasN() ? any.getN() : 1;
    }
  }

  Generation(Served served, ModelNames names, Exchange exchange, Asked asked, AnswerForm form) {
    this.served = served;
    this.names = names;
    this.exchange = exchange;
    this.asked = asked;
    this.form = form;
  }

  /** Reads {@code stream} and its options, and begins. */
  void begin(Fields fields) throws FieldException {
    boolean stream = fields.flag("stream", false);
    Fields options = fields.object("stream_options");
    boolean usage = false;
    if (options != null) {
      usage = options.flag("include_usage", false);
      options.withoutEffect("include_obfuscation");
      options.only("continuous_usage_stats", false);
      options.end();
      if (!stream) {
        throw FieldException.of("stream_options", "goes with \"stream\": true only; leave it out");
      }
    }
    fields.end();
    if (stream) {
      GenerateRequest any = asked.requests().getFirst();
      if (any.getBestOf() > Math.max(1, any.getN())) {
        throw FieldException.of(
            "best_of",
            "the best of %d are known only when all have ended; leave stream out"
                .formatted(any.getBestOf()));
      }
      stream(usage);
    } else {
      whole();
    }
  }

  private void start(GenerateRequest request, AnswerListener listener) {
    synchronized (this) {
      if (over) {
        return;
      }
    }
    Turn turn =
        served
            .conversation()
            .start(
                exchange.caller(),
                exchange.origin(),
                request,
                GenerationTask.NO_DEADLINE,
                listener);
    boolean late;
    synchronized (this) {
      turns.add(turn);
      late = over;
    }
    if (late) {
      turn.cancel();
    }
  }

  private void cancel() {
    List<Turn> running;
    synchronized (this) {
      over = true;
      running = List.copyOf(turns);
    }
    running.forEach(Turn::cancel);
  }

  private void resume() {
    List<Turn> running;
    synchronized (this) {
      running = List.copyOf(turns);
    }
    running.forEach(Turn::resume);
  }

  private Throwable explained(Throwable failure) {
    return names.explain(
        exchange.caller(),
        unwrapped(failure),
        asked.model(),
        asked.requests().getFirst().getAdaptersCount() > 0,
        form.fields());
  }

  static Throwable unwrapped(Throwable failure) {
    return failure instanceof CompletionException e && e.getCause() != null
        ? unwrapped(e.getCause())
        : failure;
  }

  /** Says in the head which adapters answer; on the event loop. */
  static void tell(Exchange exchange, List<AppliedAdapter> adapters) {
    if (!adapters.isEmpty() && !exchange.isOver() && !exchange.response().headWritten()) {
      exchange
          .response()
          .putHeader(
              DIGEST,
              adapters.stream().map(AppliedAdapter::getDigest).collect(Collectors.joining(", ")));
    }
  }

  private ObjectNode body(boolean part, List<AppliedAdapter> adapters) {
    return JsonNodeFactory.instance
        .objectNode()
        .put("id", form.prefix() + exchange.id())
        .put("object", form.object(part))
        .put("created", created)
        .put("model", asked.model() == null ? names.base() : asked.model())
        .put("system_fingerprint", Figures.fingerprint(served.model().fingerprint(), adapters));
  }

  private static RequestException late(long tokens) {
    return new RequestException(
        RequestException.Code.DEADLINE_EXCEEDED,
        "the deadline passed after %d generated tokens; ask for fewer or wait longer"
            .formatted(tokens));
  }

  // Whole

  private void whole() {
    List<CompletableFuture<GenerateResponse>> results = new ArrayList<>();
    CompletableFuture<Boolean> all = new CompletableFuture<>();
    exchange.onGone(this::cancel);
    for (GenerateRequest request : asked.requests()) {
      AnswerCollector collector = new AnswerCollector(request);
      results.add(collector.result());
      var _ =
          collector
              .result()
              .whenComplete(
                  (response, failure) -> {
                    if (failure != null && all.completeExceptionally(failure)) {
                      cancel();
                    }
                  });
      start(request, collector);
    }
    var _ =
        CompletableFuture.allOf(results.toArray(new CompletableFuture<?>[0]))
            .whenComplete(
                (done, failure) -> {
                  if (failure == null) {
                    all.complete(true);
                  }
                });
    var _ =
        all.whenCompleteAsync(
            (done, failure) -> {
              try {
                if (failure != null) {
                  exchange.fail(explained(failure));
                } else {
                  answer(results.stream().map(CompletableFuture::join).toList());
                }
              } catch (RuntimeException e) {
                exchange.fail(e);
              }
            },
            served.workers());
  }

  private void answer(List<GenerateResponse> responses) {
    Figures figures = new Figures();
    List<AppliedAdapter> adapters = responses.getFirst().getAdaptersList();
    figures.adapters(adapters);
    ObjectNode body = body(false, adapters);
    ArrayNode choices = body.putArray("choices");
    for (int i = 0; i < responses.size(); i++) {
      GenerateResponse response = responses.get(i);
      if (response.getFinishReason() == FinishReason.FINISH_REASON_DEADLINE) {
        exchange.fail(late(response.getUsage().getGeneratedTokens()));
        return;
      }
      figures.prompt(response.getUsage());
      figures.answers(response.getUsage());
      for (Choice choice : choices(response)) {
        int index = choices.size();
        figures.seed(index, choice.getSeed());
        ObjectNode written =
            form.choice(i)
                .whole(
                    response.getPromptLogprobsList(),
                    choice.getText(),
                    choice.getTokenIdsList(),
                    choice.getLogprobsList(),
                    choice.getFinishReason());
        choices.add(written.put("index", index));
      }
    }
    figures.usage(body);
    figures.own(body);
    exchange.run(() -> tell(exchange, adapters));
    exchange.answer(body);
  }

  private static List<Choice> choices(GenerateResponse response) {
    return response.getChoicesCount() > 0
        ? response.getChoicesList()
        : List.of(
            Choice.newBuilder()
                .setText(response.getText())
                .addAllTokenIds(response.getTokenIdsList())
                .addAllLogprobs(response.getLogprobsList())
                .setFinishReason(response.getFinishReason())
                .setSeed(response.getUsage().getSeed())
                .build());
  }

  // Streams

  private void stream(boolean usage) {
    Events events = new Events(usage);
    exchange.onGone(this::cancel);
    events.stream.onReady(this::resume);
    for (int i = 0; i < asked.requests().size(); i++) {
      start(asked.requests().get(i), new Streamed(events, i));
    }
  }

  /** All answers on their way to the reader. But for the stream it belongs to the event loop. */
  private final class Events {
    private final EventStream stream = new EventStream(exchange);
    private final boolean withUsage;
    private final Figures figures = new Figures();
    private final List<AppliedAdapter> adapters = new ArrayList<>();
    private int left = asked.requests().size() * asked.answers();
    private long tokens;

    Events(boolean withUsage) {
      this.withUsage = withUsage;
    }

    void started(List<AppliedAdapter> applied) {
      if (adapters.isEmpty()) {
        adapters.addAll(applied);
        figures.adapters(applied);
        tell(exchange, applied);
      }
    }

    void send(int index, @Nullable ObjectNode choice) {
      if (choice != null) {
        stream.send(event(index, choice));
      }
    }

    private ObjectNode event(int index, ObjectNode choice) {
      ObjectNode event = body(true, adapters);
      event.putArray("choices").add(choice.put("index", index));
      if (withUsage) {
        event.putNull("usage");
      }
      return event;
    }

    void finished(int index, ObjectNode choice, Usage usage, boolean first) {
      if (first) {
        figures.prompt(usage);
      }
      figures.answers(usage);
      figures.seed(index, usage.getSeed());
      left--;
      ObjectNode event = event(index, choice);
      if (left == 0 && !withUsage) {
        figures.own(event);
      }
      stream.send(event);
      if (left > 0) {
        return;
      }
      if (withUsage) {
        ObjectNode last = body(true, adapters);
        last.putArray("choices");
        figures.usage(last);
        figures.own(last);
        stream.send(last);
      }
      stream.send("[DONE]");
      stream.end();
    }

    void fail(Throwable failure) {
      stream.fail(explained(failure));
      cancel();
    }
  }

  /** The answers to one of the prompts. */
  private final class Streamed implements AnswerListener {
    private final Events events;
    private final int first;
    private final List<ChoiceForm> choices = new ArrayList<>();

    Streamed(Events events, int prompt) {
      this.events = events;
      first = prompt * asked.answers();
      for (int i = 0; i < asked.answers(); i++) {
        choices.add(form.choice(prompt));
      }
    }

    @Override
    public boolean ready() {
      return events.stream.ready();
    }

    @Override
    public void queued() {
      events.stream.post(events.stream::beat);
    }

    @Override
    public void started(GenerateEvent.Started started) {
      events.stream.post(
          () -> {
            events.started(started.getAdaptersList());
            for (int i = 0; i < choices.size(); i++) {
              events.send(first + i, choices.get(i).begin(started.getPromptLogprobsList()));
            }
          });
    }

    @Override
    public void delta(GenerateEvent.Delta delta) {
      events.stream.post(
          () -> {
            events.tokens += delta.getTokenIdsCount();
            ChoiceForm choice = choices.get(delta.getIndex());
            events.send(
                first + delta.getIndex(),
                choice.more(delta.getText(), delta.getTokenIdsList(), delta.getLogprobsList()));
          });
    }

    @Override
    public void finished(GenerateEvent.Finished finished) {
      events.stream.post(
          () -> {
            if (finished.getFinishReason() == FinishReason.FINISH_REASON_DEADLINE) {
              events.fail(late(events.tokens));
              return;
            }
            int index = finished.getIndex();
            ObjectNode end = choices.get(index).end(finished.getFinishReason());
            events.finished(first + index, end, finished.getUsage(), index == 0);
          });
    }

    @Override
    public void failed(RequestException failure) {
      events.stream.post(() -> events.fail(failure));
    }
  }
}
