package dev.wardrobe.serve;

import dev.wardrobe.adapter.AdapterRegistry;
import dev.wardrobe.adapter.Lease;
import dev.wardrobe.compute.Draw;
import dev.wardrobe.engine.Engine;
import dev.wardrobe.engine.EngineException;
import dev.wardrobe.engine.GenerationTask;
import dev.wardrobe.engine.Ticket;
import dev.wardrobe.engine.TokenListener;
import dev.wardrobe.grammar.Grammar;
import dev.wardrobe.model.Model;
import dev.wardrobe.sampling.SamplingException;
import dev.wardrobe.sampling.SamplingParams;
import dev.wardrobe.sampling.SamplingRequest;
import dev.wardrobe.telemetry.Origin;
import dev.wardrobe.telemetry.RequestReport;
import dev.wardrobe.tenant.Caller;
import dev.wardrobe.tenant.Scope;
import dev.wardrobe.tenant.VisibleAdapters;
import dev.wardrobe.text.TokenStream;
import dev.wardrobe.v1.DetokenizeRequest;
import dev.wardrobe.v1.DetokenizeResponse;
import dev.wardrobe.v1.EmbedRequest;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.TokenizeRequest;
import dev.wardrobe.v1.TokenizeResponse;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;
import java.util.function.Consumer;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * From requests to answers, for every front end: checks a request, turns it into tokens, waits for
 * its adapter, has the engine generate, and turns tokens back into text.
 *
 * <p>Rendering and tokenizing run on the workers; the callers of {@link #start} never wait.
 */
public final class Conversation {
  private static final Logger log = LoggerFactory.getLogger(Conversation.class);

  /** Any number of top log-probabilities, the whole vocabulary included. */
  public static final int UNLIMITED = -1;

  /** The default of {@code --max-logprobs}. */
  public static final int DEFAULT_MAX_LOGPROBS = 20;

  // Stop texts are looked for on the engine's thread, after each token.
  private static final int MAX_STOPS = 64;
  private static final int MAX_STOP_LENGTH = 1024;
  private static final int MAX_KEY_LENGTH = 1024;

  private static final int MAX_CHOICES = 32;
  private static final int MAX_INPUTS = 1024;
  private static final int MAX_TENANT_LENGTH = 128;

  private final Model model;
  private final Prompts prompts;
  private final AdapterRegistry adapters;
  private final Engine engine;
  private final Executor workers;
  private final int maxLogprobs;
  private final Shadows shadows;
  private volatile @Nullable Consumer<RequestReport> reports;
  private final @Nullable Duration longest;

  /**
   * @param workers run what takes time before a request reaches the engine
   * @param maxLogprobs most top log-probabilities that a request may ask for, or {@link #UNLIMITED}
   */
  public Conversation(
      Model model,
      Prompts prompts,
      AdapterRegistry adapters,
      Engine engine,
      Executor workers,
      int maxLogprobs) {
    this(model, prompts, adapters, engine, workers, maxLogprobs, null);
  }

  /**
   * As above, with a limit of its own.
   *
   * @param longest how long a request may take, whatever it says itself; null: as long as it takes
   */
  public Conversation(
      Model model,
      Prompts prompts,
      AdapterRegistry adapters,
      Engine engine,
      Executor workers,
      int maxLogprobs,
      @Nullable Duration longest) {
    if (maxLogprobs < UNLIMITED) {
      throw new IllegalArgumentException(
          "max-logprobs: expected 0 or more, or -1 for the whole vocabulary, got " + maxLogprobs);
    }
    this.model = model;
    this.prompts = prompts;
    this.adapters = adapters;
    this.engine = engine;
    this.workers = workers;
    this.maxLogprobs = maxLogprobs;
    this.shadows = new Shadows(adapters, engine);
    this.longest = longest;
  }

  /** Begins to answer a request. Every error goes to the listener. */
  public Turn start(GenerateRequest request, AnswerListener listener) {
    return start(request, GenerationTask.NO_DEADLINE, listener);
  }

  /**
   * Begins to answer a request. Every error goes to the listener.
   *
   * @param deadline as {@link System#nanoTime}
   */
  public Turn start(GenerateRequest request, long deadline, AnswerListener listener) {
    return start(Caller.ANYONE, request, deadline, listener);
  }

  /**
   * Begins to answer a request. Every error goes to the listener.
   *
   * @param caller whose it is
   * @param deadline as {@link System#nanoTime}
   */
  public Turn start(
      Caller caller, GenerateRequest request, long deadline, AnswerListener listener) {
    return start(caller, Origin.NONE, request, deadline, listener);
  }

  /**
   * Begins to answer a request. Every error goes to the listener.
   *
   * @param caller whose it is
   * @param origin how it came here
   * @param deadline as {@link System#nanoTime}
   */
  public Turn start(
      Caller caller,
      Origin origin,
      GenerateRequest request,
      long deadline,
      AnswerListener listener) {
    Turn turn = new Turn(this, caller, origin, request, listener, atMost(deadline));
    turn.start();
    return turn;
  }

  /**
   * Begins to turn texts into vectors.
   *
   * @param deadline as {@link System#nanoTime}
   */
  public Embedding embed(EmbedRequest request, long deadline) {
    return embed(Caller.ANYONE, request, deadline);
  }

  /**
   * Begins to turn texts into vectors.
   *
   * @param caller whose they are
   * @param deadline as {@link System#nanoTime}
   */
  public Embedding embed(Caller caller, EmbedRequest request, long deadline) {
    return embed(caller, Origin.NONE, request, deadline);
  }

  /**
   * Begins to turn texts into vectors.
   *
   * @param caller whose they are
   * @param origin how they came here
   * @param deadline as {@link System#nanoTime}
   */
  public Embedding embed(Caller caller, Origin origin, EmbedRequest request, long deadline) {
    Embedding embedding = new Embedding(this, caller, origin, request, atMost(deadline));
    embedding.start();
    return embedding;
  }

  private long atMost(long deadline) {
    if (longest == null) {
      return deadline;
    }
    long end = System.nanoTime() + longest.toNanos();
    return deadline == GenerationTask.NO_DEADLINE || deadline - end > 0 ? end : deadline;
  }

  /** The tokens of each input. */
  List<int[]> inputs(EmbedRequest request) throws RequestException {
    if (request.getInputsCount() < 1 || request.getInputsCount() > MAX_INPUTS) {
      throw RequestException.invalid(
          "inputs: expected 1 to %d, got %d".formatted(MAX_INPUTS, request.getInputsCount()));
    }
    boolean special = !request.hasAddSpecialTokens() || request.getAddSpecialTokens();
    List<int[]> inputs = new ArrayList<>();
    for (int i = 0; i < request.getInputsCount(); i++) {
      String field = "inputs[%d]".formatted(i);
      int[] tokens = prompts.tokens(request.getInputs(i), special, field);
      if (tokens.length > engine.contextLength()) {
        throw RequestException.invalid(
            "%s: has %d tokens, the context is %s; shorten it"
                .formatted(field, tokens.length, describe(engine.contextLength())));
      }
      inputs.add(tokens);
    }
    return inputs;
  }

  /** Tokens of a text or a conversation. Takes time in proportion to it. */
  public TokenizeResponse tokenize(TokenizeRequest request) throws RequestException {
    return prompts.tokenize(request);
  }

  /** Text of tokens. Takes time in proportion to them. */
  public DetokenizeResponse detokenize(DetokenizeRequest request) throws RequestException {
    return prompts.detokenize(request);
  }

  /** What a token is in a text; null without a tokenizer. */
  public @Nullable Piece piece(int token) {
    return prompts.piece(token);
  }

  /** Whether the model's chat template has that text in its source: what it knows of. */
  public boolean templateMentions(String text) {
    return prompts.templateMentions(text);
  }

  Executor workers() {
    return workers;
  }

  /**
   * Has every request that ends from now on told of, on the thread that ended it, often the
   * engine's: it returns at once. Nothing before this is told.
   */
  public void reportTo(Consumer<RequestReport> reports) {
    this.reports = reports;
  }

  /** Tells of a request that has ended. */
  void report(Supplier<RequestReport> report) {
    Consumer<RequestReport> to = reports;
    if (to != null) {
      try {
        to.accept(report.get());
      } catch (RuntimeException e) {
        log.error("telling of a request failed", e);
      }
    }
  }

  CompletableFuture<List<Lease>> lease(
      Caller caller, List<Plan.Part> parts, @Nullable String requestKey) {
    VisibleAdapters visible = new VisibleAdapters(adapters, caller);
    List<CompletableFuture<Lease>> asked = new ArrayList<>();
    try {
      for (Plan.Part part : parts) {
        asked.add(visible.lease(part.adapter(), requestKey));
      }
    } catch (RuntimeException | Error e) {
      Leases.giveUp(asked);
      throw e;
    }
    return Leases.all(asked);
  }

  Shadows shadows() {
    return shadows;
  }

  List<Ticket> submit(GenerationTask task, List<? extends TokenListener> listeners)
      throws EngineException {
    return engine.submit(task, listeners);
  }

  /** How answers are computed. */
  String math() {
    return engine.math().id();
  }

  /** A new answer's text, or null without a tokenizer. */
  @Nullable TokenStream stream() {
    return prompts.stream();
  }

  Plan plan(Caller caller, GenerateRequest request) throws RequestException {
    SamplingParams sampling = sampling(request);
    List<String> stops = stops(request);
    int top = top(request);
    Set<Integer> stopTokens = new HashSet<>();
    for (int token : request.getStopTokenIdsList()) {
      stopTokens.add(prompts.checkToken("stop_token_ids", token));
    }
    Set<Integer> eos = request.getIgnoreEos() ? Set.of() : Set.copyOf(model.defaults().eos());
    int[] prompt = prompts.tokens(request);
    int maxTokens = maxTokens(request, prompt.length);
    checkMinTokens(sampling.minTokens(), maxTokens, eos, stopTokens);
    return new Plan(
        request.getId(),
        Mixture.of(request),
        tenant(caller, request.getTenant()),
        requestKey(request.hasRequestKey() ? request.getRequestKey() : null),
        prompt,
        sampling,
        maxTokens,
        eos,
        stopTokens,
        stops,
        request.hasLogprobs(),
        top,
        request.getEcho(),
        choices(request, sampling, maxTokens),
        null);
  }

  /** How many answers to generate. */
  private int choices(GenerateRequest request, SamplingParams sampling, int maxTokens)
      throws RequestException {
    int most = Math.min(MAX_CHOICES, engine.options().maxWaiting());
    int n = request.hasN() ? request.getN() : 1;
    int choices = request.hasBestOf() ? request.getBestOf() : n;
    if (n < 1 || n > most) {
      throw RequestException.invalid("n: expected 1 to %d answers, got %d".formatted(most, n));
    }
    if (choices < n || choices > most) {
      throw RequestException.invalid(
          "best_of: expected n, which is %d, to %d answers, got %d".formatted(n, most, choices));
    }
    if (choices > 1 && (sampling.temperature() == 0 || maxTokens == 0)) {
      throw RequestException.invalid(
          "%s: expected 1, got %d: %s"
              .formatted(
                  n > 1 ? "n" : "best_of",
                  choices,
                  maxTokens == 0
                      ? "max_tokens 0 generates nothing"
                      : "at temperature 0 all answers are the same; give a temperature over 0"));
    }
    return choices;
  }

  /** What the answer's text must be; null if it may be anything. */
  CompletableFuture<@Nullable Grammar> grammar(GenerateRequest request) throws RequestException {
    return prompts.grammar(request);
  }

  /**
   * Whose a request is.
   *
   * @param tenant as it says itself, or nothing
   */
  static String tenant(Caller caller, String tenant) throws RequestException {
    String own = caller.tenant();
    if (own != null && (tenant.isEmpty() || tenant.equals(own))) {
      return own;
    }
    if (own != null && !caller.may(Scope.ADMIN)) {
      throw new RequestException(
          RequestException.Code.PERMISSION_DENIED,
          "tenant: expected '%s', whose key this is, or none, got another; leave it out"
              .formatted(own));
    }
    if (tenant.length() > MAX_TENANT_LENGTH) {
      throw RequestException.invalid(
          "tenant: expected at most %d characters, got %d"
              .formatted(MAX_TENANT_LENGTH, tenant.length()));
    }
    return tenant;
  }

  /** Whose a request is told to be, whatever is wrong with it: its key's word counts. */
  static String told(Caller caller, String tenant) {
    String own = caller.tenant();
    return own == null || (caller.may(Scope.ADMIN) && !tenant.isEmpty()) ? tenant : own;
  }

  static @Nullable String requestKey(@Nullable String key) throws RequestException {
    if (key != null && key.length() > MAX_KEY_LENGTH) {
      throw RequestException.invalid(
          "request_key: expected at most %d characters, got %d"
              .formatted(MAX_KEY_LENGTH, key.length()));
    }
    return key;
  }

  private SamplingParams sampling(GenerateRequest request) throws RequestException {
    try {
      return new SamplingRequest(
              request.hasTemperature() ? request.getTemperature() : null,
              request.hasTopK() ? request.getTopK() : null,
              request.hasTopP() ? request.getTopP() : null,
              request.hasMinP() ? request.getMinP() : null,
              request.hasRepetitionPenalty() ? request.getRepetitionPenalty() : null,
              request.hasPresencePenalty() ? request.getPresencePenalty() : null,
              request.hasFrequencyPenalty() ? request.getFrequencyPenalty() : null,
              request.hasSeed() ? request.getSeed() : null,
              logitBias(request),
              request.hasMinTokens() ? request.getMinTokens() : null)
          .resolve(model.defaults());
    } catch (SamplingException e) {
      String message = e.getMessage();
      throw RequestException.invalid(message == null ? e.toString() : message);
    }
  }

  private Map<Integer, Float> logitBias(GenerateRequest request) throws RequestException {
    Map<Integer, Float> biases = request.getLogitBiasMap();
    for (int token : biases.keySet()) {
      prompts.checkToken("logit_bias", token);
    }
    return biases;
  }

  private void checkMinTokens(
      int minTokens, int maxTokens, Set<Integer> eos, Set<Integer> stopTokens)
      throws RequestException {
    if (minTokens > maxTokens) {
      throw RequestException.invalid(
          "min_tokens: expected at most max_tokens, %d, got %d".formatted(maxTokens, minTokens));
    }
    Set<Integer> ends = new HashSet<>(eos);
    ends.addAll(stopTokens);
    if (minTokens > 0 && ends.size() >= model.config().vocabulary()) {
      throw RequestException.invalid(
          "min_tokens %d with stop_token_ids of the whole vocabulary leaves no token to choose"
              .formatted(minTokens));
    }
  }

  private List<String> stops(GenerateRequest request) throws RequestException {
    List<String> stops = request.getStopList();
    if (!stops.isEmpty()) {
      prompts.requireTokenizer("stop", "give stop_token_ids");
    }
    if (stops.size() > MAX_STOPS) {
      throw RequestException.invalid(
          "stop: expected at most %d texts, got %d".formatted(MAX_STOPS, stops.size()));
    }
    for (String stop : stops) {
      if (stop.isEmpty() || stop.length() > MAX_STOP_LENGTH) {
        throw RequestException.invalid(
            "stop: expected texts of 1 to %d characters, got one of %d"
                .formatted(MAX_STOP_LENGTH, stop.length()));
      }
    }
    return stops;
  }

  private int top(GenerateRequest request) throws RequestException {
    int top = request.getLogprobs();
    if (top < Draw.ALL) {
      throw RequestException.invalid(
          "logprobs: expected 0 or more, or -1 for the whole vocabulary, got " + top);
    }
    if (maxLogprobs != UNLIMITED && (top == Draw.ALL || top > maxLogprobs)) {
      throw RequestException.invalid(
          "logprobs: expected at most %d, got %s; start with --max-logprobs %d to allow it"
              .formatted(maxLogprobs, top == Draw.ALL ? "-1 (the whole vocabulary)" : top, top));
    }
    int vocabulary = model.config().vocabulary();
    if (top > vocabulary) {
      throw RequestException.invalid(
          "logprobs: expected at most the vocabulary's %d tokens, or -1 for all, got %d"
              .formatted(vocabulary, top));
    }
    return top;
  }

  private int maxTokens(GenerateRequest request, int prompt) throws RequestException {
    int context = engine.contextLength();
    int left = context - prompt;
    if (!request.hasMaxTokens()) {
      if (left < 1) {
        throw RequestException.invalid(
            "the prompt has %d tokens, the context %s: no room for an answer; shorten the prompt"
                .formatted(prompt, describe(context)));
      }
      return left;
    }
    int asked = request.getMaxTokens();
    if (asked < 0 || (asked == 0 && !request.getEcho())) {
      throw RequestException.invalid(
          "max_tokens: expected 1 or more, or 0 with echo to score the prompt alone, got " + asked);
    }
    if (asked > left) {
      throw RequestException.invalid(
          "the prompt's %d tokens and max_tokens %d make %d, the context is %s; %s"
              .formatted(
                  prompt,
                  asked,
                  (long) prompt + asked,
                  describe(context),
                  left < 1 ? "shorten the prompt" : "ask for at most " + left));
    }
    return asked;
  }

  private String describe(int context) {
    int whole = model.config().contextLength();
    return context == whole
        ? context + " tokens"
        : "%d tokens (all that the KV cache holds; the model's is %d, see --kv-tokens)"
            .formatted(context, whole);
  }
}
