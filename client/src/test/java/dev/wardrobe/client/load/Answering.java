package dev.wardrobe.client.load;

import dev.wardrobe.v1.FinishReason;
import dev.wardrobe.v1.GenerateEvent;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.GenerationServiceGrpc;
import dev.wardrobe.v1.ListStepsRequest;
import dev.wardrobe.v1.ListStepsResponse;
import dev.wardrobe.v1.MemoryUse;
import dev.wardrobe.v1.ModelInfoRequest;
import dev.wardrobe.v1.ModelInfoResponse;
import dev.wardrobe.v1.StepRecord;
import dev.wardrobe.v1.Usage;
import io.grpc.Server;
import io.grpc.netty.NettyServerBuilder;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicInteger;

/** A server that answers at once, unless a test makes it do otherwise. */
class Answering extends GenerationServiceGrpc.GenerationServiceImplBase implements AutoCloseable {
  final List<GenerateRequest> asked = new CopyOnWriteArrayList<>();
  final AtomicInteger running = new AtomicInteger();
  final AtomicInteger mostRunning = new AtomicInteger();
  private final Server server;

  Answering() throws IOException {
    server =
        NettyServerBuilder.forAddress(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0))
            .addService(this)
            .build()
            .start();
  }

  String target() {
    return "127.0.0.1:" + server.getPort();
  }

  /** May wait, or answer otherwise and return false. */
  boolean before(GenerateRequest request, StreamObserver<GenerateEvent> answer) {
    return true;
  }

  @Override
  public void generateStream(GenerateRequest request, StreamObserver<GenerateEvent> answer) {
    asked.add(request);
    mostRunning.accumulateAndGet(running.incrementAndGet(), Math::max);
    try {
      if (!before(request, answer)) {
        return;
      }
      answer.onNext(
          GenerateEvent.newBuilder()
              .setStarted(GenerateEvent.Started.newBuilder().setAdapter(request.getAdapter()))
              .build());
      for (int i = 0; i < request.getMaxTokens(); i++) {
        answer.onNext(
            GenerateEvent.newBuilder()
                .setDelta(GenerateEvent.Delta.newBuilder().addTokenIds(i).setText("x"))
                .build());
      }
      running.decrementAndGet();
      answer.onNext(
          GenerateEvent.newBuilder()
              .setFinished(
                  GenerateEvent.Finished.newBuilder()
                      .setFinishReason(FinishReason.FINISH_REASON_LENGTH)
                      .setUsage(
                          Usage.newBuilder()
                              .setPromptTokens(request.getTokenIdsCount())
                              .setGeneratedTokens(request.getMaxTokens())
                              .setSwapInMs(request.getAdapter().startsWith("cold") ? 3 : 0)))
              .build());
      answer.onCompleted();
    } catch (RuntimeException e) {
      // Cancelled by a run that was over.
      running.decrementAndGet();
    }
  }

  @Override
  public void modelInfo(ModelInfoRequest request, StreamObserver<ModelInfoResponse> answer) {
    answer.onNext(
        ModelInfoResponse.newBuilder()
            .setModel("answering")
            .setVocabularySize(100)
            .setSteps(asked.size())
            .setMemory(MemoryUse.newBuilder().setAdapters(1 << 20))
            .build());
    answer.onCompleted();
  }

  @Override
  public void listSteps(ListStepsRequest request, StreamObserver<ListStepsResponse> answer) {
    answer.onNext(
        ListStepsResponse.newBuilder()
            .addSteps(StepRecord.newBuilder().setSequences(3).setAdapters(2).setDurationUs(1500))
            .build());
    answer.onCompleted();
  }

  @Override
  public void close() {
    server.shutdownNow();
    try {
      server.awaitTermination();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }
}
