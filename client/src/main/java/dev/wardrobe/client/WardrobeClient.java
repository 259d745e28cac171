package dev.wardrobe.client;

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
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.NettyChannelBuilder;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import java.io.IOException;
import java.nio.file.Path;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;

/**
 * A connection to one Wardrobe server. Thread-safe.
 *
 * <p>Failures are {@link StatusRuntimeException}s whose description says what was expected, what
 * was got, and what to do.
 */
public final class WardrobeClient implements AutoCloseable {
  /** Largest answer taken: a whole vocabulary's log-probabilities for many tokens. */
  private static final int MAX_MESSAGE_BYTES = 1 << 30;

  private final ManagedChannel channel;
  private final GenerationServiceGrpc.GenerationServiceBlockingStub generation;
  private final AdapterServiceGrpc.AdapterServiceBlockingStub adapters;

  private WardrobeClient(ManagedChannel channel) {
    this.channel = channel;
    this.generation = GenerationServiceGrpc.newBlockingStub(channel);
    this.adapters = AdapterServiceGrpc.newBlockingStub(channel);
  }

  /**
   * Connects without TLS; the first call finds out whether anyone is there.
   *
   * @param target {@code host:port}
   */
  public static WardrobeClient connect(String target) {
    return new WardrobeClient(
        NettyChannelBuilder.forTarget(target)
            .usePlaintext()
            .maxInboundMessageSize(MAX_MESSAGE_BYTES)
            .build());
  }

  public GenerateResponse generate(GenerateRequest request) {
    return generation.generate(request);
  }

  /** The answer as it is made. Reading slowly slows only this answer's own generation. */
  public Iterator<GenerateEvent> stream(GenerateRequest request) {
    return generation.generateStream(request);
  }

  /** The answer to a conversation as it is made. */
  public Iterator<GenerateEvent> chat(GenerateRequest request) {
    return generation.chat(request);
  }

  /** Starts an answer and returns at once; the listener is called on a thread of the channel. */
  public Answer start(GenerateRequest request, AnswerListener listener) {
    Answer answer = new Answer(listener);
    GenerationServiceGrpc.newStub(channel).generateStream(request, answer);
    return answer;
  }

  /** Vectors for texts. */
  public EmbedResponse embed(EmbedRequest request) {
    return generation.embed(request);
  }

  public TokenizeResponse tokenize(TokenizeRequest request) {
    return generation.tokenize(request);
  }

  public String detokenize(List<Integer> tokens, boolean skipSpecial) {
    return generation
        .detokenize(
            DetokenizeRequest.newBuilder()
                .addAllTokenIds(tokens)
                .setSkipSpecialTokens(skipSpecial)
                .build())
        .getText();
  }

  public ModelInfoResponse modelInfo() {
    return generation.modelInfo(ModelInfoRequest.getDefaultInstance());
  }

  /** The engine's steps after number {@code after} that the server still remembers. */
  public List<StepRecord> steps(long after) {
    return generation
        .listSteps(ListStepsRequest.newBuilder().setAfter(after).build())
        .getStepsList();
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
    return adapters.loadAdapter(request.build());
  }

  public UnloadAdapterResponse unloadAdapter(String name) {
    return adapters.unloadAdapter(UnloadAdapterRequest.newBuilder().setName(name).build());
  }

  /** All adapters, on however many pages. */
  public List<Adapter> listAdapters() {
    return listAdaptersAndRevision().getAdaptersList();
  }

  /** All adapters, and the revision to {@link #watchAdapters watch} from. */
  public ListAdaptersResponse listAdaptersAndRevision() {
    ListAdaptersResponse page = adapters.listAdapters(ListAdaptersRequest.getDefaultInstance());
    ListAdaptersResponse.Builder all = page.toBuilder().clearNextPageToken();
    while (!page.getNextPageToken().isEmpty()) {
      page =
          adapters.listAdapters(
              ListAdaptersRequest.newBuilder().setPageToken(page.getNextPageToken()).build());
      all.addAllAdapters(page.getAdaptersList());
    }
    return all.build();
  }

  /** Has the server look through its adapter roots again. */
  public ScanAdaptersResponse scanAdapters() {
    return adapters.scanAdapters(ScanAdaptersRequest.getDefaultInstance());
  }

  /**
   * Publishes a PEFT directory of this machine.
   *
   * @param header without sizes
   * @throws IOException if it cannot be read; then the server keeps nothing
   */
  public PublishAdapterResponse publishAdapter(PublishAdapterRequest.Header header, Path directory)
      throws IOException {
    return AdapterUpload.send(AdapterServiceGrpc.newStub(channel), header, directory);
  }

  /**
   * Publishes a directory of the server's.
   *
   * @param header with the directory's path under an adapter root
   */
  public PublishAdapterResponse publishAdapter(PublishAdapterRequest.Header header)
      throws IOException {
    return AdapterUpload.send(AdapterServiceGrpc.newStub(channel), header);
  }

  public ListVersionsResponse versions(String name) {
    return adapters.listVersions(ListVersionsRequest.newBuilder().setName(name).build());
  }

  public Alias setAlias(SetAliasRequest request) {
    return adapters.setAlias(request).getAlias();
  }

  public Alias rollbackAlias(String name, String alias) {
    return adapters
        .rollbackAlias(RollbackAliasRequest.newBuilder().setName(name).setAlias(alias).build())
        .getAlias();
  }

  public void deleteAlias(String name, String alias) {
    DeleteAliasResponse _ =
        adapters.deleteAlias(DeleteAliasRequest.newBuilder().setName(name).setAlias(alias).build());
  }

  /**
   * Removes a version; requests that use it go on.
   *
   * @param force even if aliases point at it
   */
  public DeleteVersionResponse deleteVersion(String name, String version, boolean force) {
    return adapters.deleteVersion(
        DeleteVersionRequest.newBuilder()
            .setName(name)
            .setVersion(version)
            .setForce(force)
            .build());
  }

  public Adapter pinAdapter(String name) {
    return adapters.pinAdapter(PinAdapterRequest.newBuilder().setName(name).build()).getAdapter();
  }

  public Adapter unpinAdapter(String name) {
    return adapters
        .unpinAdapter(UnpinAdapterRequest.newBuilder().setName(name).build())
        .getAdapter();
  }

  /**
   * What happens to the server's adapters, as it happens; ends with the client.
   *
   * @param after the revision after which it begins; null: now
   */
  public Iterator<AdapterEvent> watchAdapters(@Nullable Long after) {
    WatchAdaptersRequest.Builder request = WatchAdaptersRequest.newBuilder();
    if (after != null) {
      request.setAfterRevision(after);
    }
    return adapters.watchAdapters(request.build());
  }

  /** One adapter, by any of its names. */
  public Adapter adapter(String nameOrDigest) {
    return adapters
        .getAdapter(GetAdapterRequest.newBuilder().setName(nameOrDigest).build())
        .getAdapter();
  }

  /** Ends running calls and closes the connection. */
  @Override
  public void close() {
    channel.shutdownNow();
    try {
      boolean _ = channel.awaitTermination(5, TimeUnit.SECONDS);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
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
    private final AnswerListener listener;
    private volatile @Nullable ClientCallStreamObserver<GenerateRequest> call;

    private Answer(AnswerListener listener) {
      this.listener = listener;
    }

    /** Ends it on the server too. */
    public void cancel() {
      ClientCallStreamObserver<GenerateRequest> started = call;
      if (started != null) {
        started.cancel("cancelled by the caller", null);
      }
    }

    @Override
    public void beforeStart(ClientCallStreamObserver<GenerateRequest> stream) {
      call = stream;
    }

    @Override
    public void onNext(GenerateEvent event) {
      listener.event(event);
    }

    @Override
    public void onError(Throwable failure) {
      listener.end(failure);
    }

    @Override
    public void onCompleted() {
      listener.end(null);
    }
  }
}
