package dev.wardrobe.client;

import com.google.errorprone.annotations.CanIgnoreReturnValue;
import dev.wardrobe.client.Retries.Repeat;
import dev.wardrobe.v1.Adapter;
import dev.wardrobe.v1.AdapterEvent;
import dev.wardrobe.v1.AdapterServiceGrpc;
import dev.wardrobe.v1.Alias;
import dev.wardrobe.v1.DeleteAliasRequest;
import dev.wardrobe.v1.DeleteAliasResponse;
import dev.wardrobe.v1.DeleteVersionRequest;
import dev.wardrobe.v1.DeleteVersionResponse;
import dev.wardrobe.v1.DetokenizeRequest;
import dev.wardrobe.v1.EmbedRequest;
import dev.wardrobe.v1.EmbedResponse;
import dev.wardrobe.v1.GenerateEvent;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.GenerateResponse;
import dev.wardrobe.v1.GenerationServiceGrpc;
import dev.wardrobe.v1.GetAdapterRequest;
import dev.wardrobe.v1.ListAdaptersRequest;
import dev.wardrobe.v1.ListAdaptersResponse;
import dev.wardrobe.v1.ListStepsRequest;
import dev.wardrobe.v1.ListVersionsRequest;
import dev.wardrobe.v1.ListVersionsResponse;
import dev.wardrobe.v1.LoadAdapterRequest;
import dev.wardrobe.v1.LoadAdapterResponse;
import dev.wardrobe.v1.ModelInfoRequest;
import dev.wardrobe.v1.ModelInfoResponse;
import dev.wardrobe.v1.PinAdapterRequest;
import dev.wardrobe.v1.PublishAdapterRequest;
import dev.wardrobe.v1.PublishAdapterResponse;
import dev.wardrobe.v1.RollbackAliasRequest;
import dev.wardrobe.v1.ScanAdaptersRequest;
import dev.wardrobe.v1.ScanAdaptersResponse;
import dev.wardrobe.v1.SetAliasRequest;
import dev.wardrobe.v1.StepRecord;
import dev.wardrobe.v1.TokenizeRequest;
import dev.wardrobe.v1.TokenizeResponse;
import dev.wardrobe.v1.UnloadAdapterRequest;
import dev.wardrobe.v1.UnloadAdapterResponse;
import dev.wardrobe.v1.UnpinAdapterRequest;
import dev.wardrobe.v1.WatchAdaptersRequest;
import io.grpc.Channel;
import io.grpc.ChannelCredentials;
import io.grpc.Context;
import io.grpc.Deadline;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.netty.NettyChannelBuilder;
import io.grpc.stub.AbstractStub;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashSet;
import java.util.Iterator;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/**
 * A connection to one Wardrobe server, or to several of which each has its own adapters resident.
 * Thread-safe.
 *
 * <p>Failures are {@link StatusRuntimeException}s whose description says what was expected, what
 * was got, and what to do; {@link CallError#of} reads the rest of them: whether a server answered,
 * and when to ask again.
 *
 * <p>A call is made once more where that is safe: if no server answered (UNAVAILABLE, as which a
 * cancellation by the other side counts that nobody here asked for) or the queue was full
 * (RESOURCE_EXHAUSTED with {@code google.rpc.RetryInfo}, whose time is kept to), after a wait with
 * jitter, {@link Builder#attempts} times at most, within the call's deadline. An answer that has
 * begun is never begun again. Changes that would count twice are made again only if the server said
 * that it took nothing; a publish only if it names version and digest.
 */
public final class WardrobeClient implements AutoCloseable {
  /** The environment variable with the API key that is sent if the builder is given none. */
  public static final String API_KEY_VARIABLE = "WARDROBE_API_KEY";

  private static final System.Logger LOG = System.getLogger(WardrobeClient.class.getName());

  /** Largest answer taken: a whole vocabulary's log-probabilities for many tokens. */
  private static final int MAX_MESSAGE_BYTES = 1 << 30;

  private final ServerTargets servers;
  private final Retries retries;
  private final @Nullable Duration deadline;
  private final Consumer<Failover> failover;

  private WardrobeClient(
      ServerTargets servers,
      Retries retries,
      @Nullable Duration deadline,
      Consumer<Failover> failover) {
    this.servers = servers;
    this.retries = retries;
    this.deadline = deadline;
    this.failover = failover;
  }

  /**
   * A request that another server is asked, since its own did not answer.
   *
   * @param from the server that did not answer
   * @param to the one asked instead
   * @param why gRPC's words
   */
  public record Failover(String from, String to, String why) {
    @Override
    public String toString() {
      return "%s does not answer (%s); asking %s instead"
          .formatted(from, why.lines().findFirst().orElse(""), to);
    }
  }

  /**
   * Connects without TLS, with the API key of {@link #API_KEY_VARIABLE} if there is one; the first
   * call finds out whether anyone is there.
   *
   * @param target {@code host:port}
   */
  public static WardrobeClient connect(String target) {
    return builder(target).build();
  }

  /**
   * Begins a client.
   *
   * @param targets {@code host:port} of each server, at least one
   */
  public static Builder builder(String... targets) {
    return new Builder(List.of(targets));
  }

  /** The same client, whose calls may take so long each, attempts and waits included. */
  public WardrobeClient withDeadline(Duration each) {
    return new WardrobeClient(servers, retries, positive(each, "deadline"), failover);
  }

  /**
   * The same client, that asks only one of its servers.
   *
   * @throws IllegalArgumentException if it has none of that name
   */
  public WardrobeClient at(String target) {
    return new WardrobeClient(servers.only(target), retries, deadline, failover);
  }

  /** The servers, as the builder was given them. */
  public List<String> targets() {
    return servers.names();
  }

  /** The servers in the order in which they are asked for an adapter: its own first. */
  public List<String> targets(String adapter) {
    return servers.order(adapter).stream().map(ServerTargets.Server::name).toList();
  }

  private static Duration positive(Duration duration, String what) {
    if (duration.isNegative() || duration.isZero()) {
      throw new IllegalArgumentException(what + ": expected more than 0, got " + duration);
    }
    return duration;
  }

  private Attempts attempts(Repeat repeat, @Nullable String adapter) {
    return new Attempts(servers.order(adapter), retries, repeat, ends(), failover);
  }

  private @Nullable Deadline ends() {
    return deadline == null ? null : Deadline.after(deadline.toNanos(), TimeUnit.NANOSECONDS);
  }

  private static <S extends AbstractStub<S>> S until(S stub, @Nullable Deadline deadline) {
    return deadline == null ? stub : stub.withDeadline(deadline);
  }

  private <S extends AbstractStub<S>, T> T call(
      Repeat repeat, @Nullable String adapter, Function<Channel, S> stub, Function<S, T> call) {
    Attempts attempts = attempts(repeat, adapter);
    Attempts.Next next = attempts.first();
    while (true) {
      try {
        T answer = call.apply(until(stub.apply(next.server().channel()), attempts.deadline()));
        attempts.answered();
        return answer;
      } catch (StatusRuntimeException e) {
        next = attempts.after(e);
        if (next == null || !sleep(next.waitNanos(), new CountDownLatch(1))) {
          throw e;
        }
      }
    }
  }

  /** False if it was interrupted, or ended early. */
  private static boolean sleep(long nanos, CountDownLatch end) {
    if (nanos == 0) {
      return true;
    }
    try {
      return !end.await(nanos, TimeUnit.NANOSECONDS);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      return false;
    }
  }

  private <T> T generation(
      @Nullable String adapter,
      Function<GenerationServiceGrpc.GenerationServiceBlockingStub, T> call) {
    return call(Repeat.ALWAYS, adapter, GenerationServiceGrpc::newBlockingStub, call);
  }

  private <T> T adapters(
      Repeat repeat,
      @Nullable String adapter,
      Function<AdapterServiceGrpc.AdapterServiceBlockingStub, T> call) {
    return call(repeat, adapter, AdapterServiceGrpc::newBlockingStub, call);
  }

  private static @Nullable String adapter(GenerateRequest request) {
    return request.getAdaptersCount() > 0
        ? request.getAdapters(0).getAdapter()
        : request.getAdapter().isEmpty() ? null : request.getAdapter();
  }

  private static @Nullable String adapter(EmbedRequest request) {
    return request.getAdaptersCount() > 0
        ? request.getAdapters(0).getAdapter()
        : request.getAdapter().isEmpty() ? null : request.getAdapter();
  }

  /** The whole answer. */
  public GenerateResponse generate(GenerateRequest request) {
    return generation(adapter(request), stub -> stub.generate(request));
  }

  /**
   * The answer as it is made. Reading slowly slows only this answer's own generation; closing it
   * ends the answer on the server.
   */
  public AnswerStream stream(GenerateRequest request) {
    return stream(adapter(request), stub -> stub.generateStream(request));
  }

  /** The answer to a conversation as it is made. */
  public AnswerStream chat(GenerateRequest request) {
    return stream(adapter(request), stub -> stub.chat(request));
  }

  private AnswerStream stream(
      @Nullable String adapter,
      Function<GenerationServiceGrpc.GenerationServiceBlockingStub, Iterator<GenerateEvent>> call) {
    Attempts attempts = attempts(Repeat.ALWAYS, adapter);
    return new AnswerStream(
        (failure, context) -> {
          Attempts.Next next = failure == null ? attempts.first() : attempts.after(failure);
          if (failure != null && (next == null || !sleep(next.waitNanos(), ended(context)))) {
            throw failure;
          }
          Channel channel = Objects.requireNonNull(next).server().channel();
          Context before = context.attach();
          try {
            return call.apply(
                until(GenerationServiceGrpc.newBlockingStub(channel), attempts.deadline()));
          } finally {
            context.detach(before);
          }
        });
  }

  private static CountDownLatch ended(Context context) {
    CountDownLatch ended = new CountDownLatch(1);
    context.addListener(_ -> ended.countDown(), Runnable::run);
    return ended;
  }

  /**
   * Starts an answer and returns at once; the listener is called on a thread of the channel, and
   * the next event is asked for when it returns.
   */
  public Answer start(GenerateRequest request, AnswerListener listener) {
    Answer answer = new Answer(request, listener, attempts(Repeat.ALWAYS, adapter(request)));
    answer.begin();
    return answer;
  }

  /** Vectors for texts. */
  public EmbedResponse embed(EmbedRequest request) {
    return generation(adapter(request), stub -> stub.embed(request));
  }

  public TokenizeResponse tokenize(TokenizeRequest request) {
    return generation(null, stub -> stub.tokenize(request));
  }

  public String detokenize(List<Integer> tokens, boolean skipSpecial) {
    DetokenizeRequest request =
        DetokenizeRequest.newBuilder()
            .addAllTokenIds(tokens)
            .setSkipSpecialTokens(skipSpecial)
            .build();
    return generation(null, stub -> stub.detokenize(request)).getText();
  }

  /** Of one server; {@link #at} chooses which. */
  public ModelInfoResponse modelInfo() {
    return generation(null, stub -> stub.modelInfo(ModelInfoRequest.getDefaultInstance()));
  }

  /** The engine's steps after number {@code after} that the server still remembers. */
  public List<StepRecord> steps(long after) {
    ListStepsRequest request = ListStepsRequest.newBuilder().setAfter(after).build();
    return generation(null, stub -> stub.listSteps(request)).getStepsList();
  }

  /**
   * Loads an adapter from under one of the server's roots.
   *
   * @param path the PEFT directory, or null if it is called {@code name}
   */
  public LoadAdapterResponse loadAdapter(String name, @Nullable String path) {
    LoadAdapterRequest.Builder request = LoadAdapterRequest.newBuilder().setName(name);
    if (path != null) {
      request.setPath(path);
    }
    return adapters(Repeat.ALWAYS, name, stub -> stub.loadAdapter(request.build()));
  }

  public UnloadAdapterResponse unloadAdapter(String name) {
    UnloadAdapterRequest request = UnloadAdapterRequest.newBuilder().setName(name).build();
    return adapters(Repeat.UNTAKEN, name, stub -> stub.unloadAdapter(request));
  }

  /** All adapters, on however many pages. */
  public List<Adapter> listAdapters() {
    return listAdaptersAndRevision().getAdaptersList();
  }

  /**
   * All adapters of one server ({@link #at} chooses which), and the revision to {@link
   * #watchAdapters watch} from.
   */
  public ListAdaptersResponse listAdaptersAndRevision() {
    // All pages from the same one.
    return call(
        Repeat.ALWAYS,
        null,
        AdapterServiceGrpc::newBlockingStub,
        (AdapterServiceGrpc.AdapterServiceBlockingStub stub) -> {
          ListAdaptersResponse page = stub.listAdapters(ListAdaptersRequest.getDefaultInstance());
          ListAdaptersResponse.Builder all = page.toBuilder().clearNextPageToken();
          while (!page.getNextPageToken().isEmpty()) {
            page =
                stub.listAdapters(
                    ListAdaptersRequest.newBuilder().setPageToken(page.getNextPageToken()).build());
            all.addAllAdapters(page.getAdaptersList());
          }
          return all.build();
        });
  }

  /** Has the server look through its adapter roots again. */
  public ScanAdaptersResponse scanAdapters() {
    return adapters(
        Repeat.ALWAYS, null, stub -> stub.scanAdapters(ScanAdaptersRequest.getDefaultInstance()));
  }

  /**
   * Publishes a PEFT directory of this machine.
   *
   * @param header without sizes
   * @throws IOException if it cannot be read; then the server keeps nothing
   */
  public PublishAdapterResponse publishAdapter(PublishAdapterRequest.Header header, Path directory)
      throws IOException {
    return publishAdapter(header, directory, (_, _) -> {});
  }

  /** As {@link #publishAdapter(PublishAdapterRequest.Header, Path)}, and tells how far it is. */
  public PublishAdapterResponse publishAdapter(
      PublishAdapterRequest.Header header, Path directory, UploadProgress progress)
      throws IOException {
    return publish(
        header,
        stub -> {
          try {
            return AdapterUpload.send(stub, header, directory, progress);
          } catch (IOException e) {
            throw new UncheckedIOException(e);
          }
        });
  }

  /**
   * Publishes a directory of the server's.
   *
   * @param header with the directory's path under an adapter root
   */
  public PublishAdapterResponse publishAdapter(PublishAdapterRequest.Header header)
      throws IOException {
    return publish(
        header,
        stub -> {
          try {
            return AdapterUpload.send(stub, header);
          } catch (IOException e) {
            throw new UncheckedIOException(e);
          }
        });
  }

  private PublishAdapterResponse publish(
      PublishAdapterRequest.Header header,
      Function<AdapterServiceGrpc.AdapterServiceStub, PublishAdapterResponse> call)
      throws IOException {
    // The same content under the same version is published once, however often it is sent.
    Repeat repeat = header.hasDigest() && header.hasVersion() ? Repeat.ALWAYS : Repeat.NEVER;
    try {
      return call(repeat, header.getName(), AdapterServiceGrpc::newStub, call);
    } catch (UncheckedIOException e) {
      throw Objects.requireNonNull(e.getCause());
    }
  }

  public ListVersionsResponse versions(String name) {
    ListVersionsRequest request = ListVersionsRequest.newBuilder().setName(name).build();
    return adapters(Repeat.ALWAYS, name, stub -> stub.listVersions(request));
  }

  public Alias setAlias(SetAliasRequest request) {
    // A second change, though to the same, would push the first out of what a rollback leads to.
    return adapters(Repeat.UNTAKEN, request.getName(), stub -> stub.setAlias(request)).getAlias();
  }

  public Alias rollbackAlias(String name, String alias) {
    RollbackAliasRequest request =
        RollbackAliasRequest.newBuilder().setName(name).setAlias(alias).build();
    return adapters(Repeat.UNTAKEN, name, stub -> stub.rollbackAlias(request)).getAlias();
  }

  public void deleteAlias(String name, String alias) {
    DeleteAliasRequest request =
        DeleteAliasRequest.newBuilder().setName(name).setAlias(alias).build();
    DeleteAliasResponse _ = adapters(Repeat.UNTAKEN, name, stub -> stub.deleteAlias(request));
  }

  /**
   * Removes a version; requests that use it go on.
   *
   * @param force even if aliases point at it
   */
  public DeleteVersionResponse deleteVersion(String name, String version, boolean force) {
    DeleteVersionRequest request =
        DeleteVersionRequest.newBuilder().setName(name).setVersion(version).setForce(force).build();
    return adapters(Repeat.UNTAKEN, name, stub -> stub.deleteVersion(request));
  }

  public Adapter pinAdapter(String name) {
    PinAdapterRequest request = PinAdapterRequest.newBuilder().setName(name).build();
    return adapters(Repeat.ALWAYS, name, stub -> stub.pinAdapter(request)).getAdapter();
  }

  public Adapter unpinAdapter(String name) {
    UnpinAdapterRequest request = UnpinAdapterRequest.newBuilder().setName(name).build();
    return adapters(Repeat.ALWAYS, name, stub -> stub.unpinAdapter(request)).getAdapter();
  }

  /**
   * What happens to one server's adapters, as it happens; ends with the client, and has no
   * deadline.
   *
   * @param after the revision after which it begins; null: now
   */
  public Iterator<AdapterEvent> watchAdapters(@Nullable Long after) {
    WatchAdaptersRequest.Builder request = WatchAdaptersRequest.newBuilder();
    if (after != null) {
      request.setAfterRevision(after);
    }
    return AdapterServiceGrpc.newBlockingStub(servers.order(null).getFirst().channel())
        .watchAdapters(request.build());
  }

  /** One adapter, by any of its names. */
  public Adapter adapter(String nameOrDigest) {
    GetAdapterRequest request = GetAdapterRequest.newBuilder().setName(nameOrDigest).build();
    return adapters(Repeat.ALWAYS, nameOrDigest, stub -> stub.getAdapter(request)).getAdapter();
  }

  /**
   * Ends running calls and closes the connections, those of {@link #withDeadline} and so on too.
   */
  @Override
  public void close() {
    servers.close();
  }

  @Override
  public String toString() {
    return "WardrobeClient" + servers.names();
  }

  /** How far an upload is. */
  @FunctionalInterface
  public interface UploadProgress {
    /**
     * Called after each piece.
     *
     * @param sent bytes of the weights
     * @param of all of them
     */
    void sent(long sent, long of);
  }

  /** What happens to an answer that {@link #start} began. */
  public interface AnswerListener {
    void event(GenerateEvent event);

    /**
     * The last call.
     *
     * @param failure null when the answer finished
     */
    void end(@Nullable Throwable failure);
  }

  /** A running answer. */
  public static final class Answer
      implements ClientResponseObserver<GenerateRequest, GenerateEvent> {
    private final GenerateRequest request;
    private final AnswerListener listener;
    private final Attempts attempts;
    private boolean any;

    // Guarded by this.
    private @Nullable ClientCallStreamObserver<GenerateRequest> call;
    private boolean cancelled;

    private Answer(GenerateRequest request, AnswerListener listener, Attempts attempts) {
      this.request = request;
      this.listener = listener;
      this.attempts = attempts;
    }

    private void begin() {
      ask(attempts.first());
    }

    private void ask(Attempts.Next next) {
      until(GenerationServiceGrpc.newStub(next.server().channel()), attempts.deadline())
          .generateStream(request, this);
    }

    /** Ends it on the server too. */
    public void cancel() {
      ClientCallStreamObserver<GenerateRequest> started;
      synchronized (this) {
        cancelled = true;
        started = call;
      }
      if (started != null) {
        started.cancel(CANCELLED, null);
      }
    }

    private static final String CANCELLED = "cancelled by the caller";

    @Override
    public synchronized void beforeStart(ClientCallStreamObserver<GenerateRequest> stream) {
      call = stream;
    }

    @Override
    public void onNext(GenerateEvent event) {
      any = true;
      listener.event(event);
    }

    @Override
    public void onError(Throwable failure) {
      Attempts.Next next = any || isCancelled() ? null : attempts.after(failure);
      if (next == null) {
        listener.end(failure);
        return;
      }
      CompletableFuture.delayedExecutor(next.waitNanos(), TimeUnit.NANOSECONDS)
          .execute(() -> again(next));
    }

    private void again(Attempts.Next next) {
      if (isCancelled()) {
        listener.end(Status.CANCELLED.withDescription(CANCELLED).asRuntimeException());
        return;
      }
      ask(next);
      if (isCancelled()) {
        // It was while this attempt began.
        cancel();
      }
    }

    private synchronized boolean isCancelled() {
      return cancelled;
    }

    @Override
    public void onCompleted() {
      listener.end(null);
    }
  }

  /** How to connect. */
  public static final class Builder {
    private final List<String> targets;
    private Retries retries = Retries.DEFAULT;
    private @Nullable Duration deadline;
    private Duration keepAlive = Duration.ofSeconds(30);
    private @Nullable ApiKey key;
    private boolean tls;
    private @Nullable Path authority;
    private @Nullable Path certificate;
    private @Nullable Path certificateKey;
    private Consumer<Failover> failover = event -> LOG.log(System.Logger.Level.WARNING, event);

    private Builder(List<String> targets) {
      if (targets.isEmpty()) {
        throw new IllegalArgumentException("servers: expected at least one HOST:PORT, got none");
      }
      if (new HashSet<>(targets).size() < targets.size()) {
        throw new IllegalArgumentException("servers: expected each once, got " + targets);
      }
      for (String target : targets) {
        if (target.isBlank() || target.contains("://")) {
          throw new IllegalArgumentException(
              "server: expected HOST:PORT, such as 127.0.0.1:7070, got '" + target + "'");
        }
      }
      this.targets = targets;
    }

    /** Longest time that a call may take, attempts and waits included; none by default. */
    @CanIgnoreReturnValue
    public Builder deadline(Duration each) {
      deadline = positive(each, "deadline");
      return this;
    }

    /**
     * Most attempts at a call where it may be repeated, 1 for none but the first; 4 by default. A
     * server that wants to be left alone for longer than {@code longestWait} is not waited for.
     */
    @CanIgnoreReturnValue
    public Builder attempts(int most, Duration longestWait) {
      retries = new Retries(most, longestWait);
      return this;
    }

    /**
     * How long a server may be silent during a call before it is asked whether it is there, at
     * least 10 seconds; 30 by default. It has 10 to say so.
     */
    @CanIgnoreReturnValue
    public Builder keepAlive(Duration silence) {
      keepAlive = positive(silence, "keep-alive");
      return this;
    }

    /** The API key, sent as {@code authorization: Bearer}; printed nowhere. */
    @CanIgnoreReturnValue
    public Builder apiKey(String secret) {
      key = new ApiKey(secret);
      return this;
    }

    /**
     * The API key, alone on a file's line.
     *
     * @throws IOException if it cannot be read
     */
    @CanIgnoreReturnValue
    public Builder apiKeyFile(Path file) throws IOException {
      key = ApiKey.read(file);
      return this;
    }

    /** TLS; servers are checked by the JDK's certificate authorities. */
    @CanIgnoreReturnValue
    public Builder tls() {
      tls = true;
      return this;
    }

    /** TLS; servers are checked by these certificate authorities, in PEM. */
    @CanIgnoreReturnValue
    public Builder tls(Path authorities) {
      authority = authorities;
      return tls();
    }

    /** Says who we are in TLS too: a certificate chain and its PKCS #8 key, in PEM. */
    @CanIgnoreReturnValue
    public Builder tlsCertificate(Path chain, Path privateKey) {
      certificate = chain;
      certificateKey = privateKey;
      return tls();
    }

    /** Told of each request that goes to another server than its own; by default, the log. */
    @CanIgnoreReturnValue
    public Builder onFailover(Consumer<Failover> told) {
      failover = told;
      return this;
    }

    /**
     * A channel to a server with this builder's TLS, key and keep-alive, for stubs of one's own.
     *
     * @throws IllegalArgumentException if a certificate or key cannot be read
     */
    public ManagedChannelBuilder<?> channel(String target) {
      NettyChannelBuilder channel = NettyChannelBuilder.forTarget(target, credentials());
      ApiKey sent = key;
      if (sent == null) {
        String environment = System.getenv(API_KEY_VARIABLE);
        if (environment != null && !environment.isBlank()) {
          sent = new ApiKey(environment.strip());
        }
      }
      if (sent != null) {
        channel.intercept(sent);
      }
      return channel
          .intercept(new UnaskedCancellation())
          .keepAliveTime(keepAlive.toNanos(), TimeUnit.NANOSECONDS)
          .keepAliveTimeout(10, TimeUnit.SECONDS)
          .maxInboundMessageSize(MAX_MESSAGE_BYTES);
    }

    private ChannelCredentials credentials() {
      if (!tls) {
        return InsecureChannelCredentials.create();
      }
      TlsChannelCredentials.Builder credentials = TlsChannelCredentials.newBuilder();
      Path reading = authority;
      try {
        if (authority != null) {
          credentials.trustManager(authority.toFile());
        }
        if (certificate != null && certificateKey != null) {
          reading = certificate;
          credentials.keyManager(certificate.toFile(), certificateKey.toFile());
        }
      } catch (IOException e) {
        throw new IllegalArgumentException(
            "%s: expected a readable PEM file, got %s".formatted(reading, e.getMessage()), e);
      }
      try {
        return credentials.build();
      } catch (IllegalArgumentException e) {
        throw new IllegalArgumentException("TLS: " + e.getMessage(), e);
      }
    }

    /**
     * The client; nothing is connected before the first call.
     *
     * @throws IllegalArgumentException if a certificate or key cannot be read
     */
    public WardrobeClient build() {
      return new WardrobeClient(
          new ServerTargets(targets, target -> channel(target).build()),
          retries,
          deadline,
          failover);
    }
  }
}
