package dev.wardrobe.trainer;

import dev.wardrobe.v1.GetRunRequest;
import dev.wardrobe.v1.GetRunResponse;
import dev.wardrobe.v1.ListRunsRequest;
import dev.wardrobe.v1.ListRunsResponse;
import dev.wardrobe.v1.TrainingServiceGrpc;
import io.grpc.Status;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;

/** {@code wardrobe.v1.TrainingService} over folders of runs. */
final class TrainingCalls extends TrainingServiceGrpc.TrainingServiceImplBase {
  private static final int MOST_WAITING = 64;

  private final RunFolders folders;

  /** Reads files, which no event loop may; one that nobody asks goes away. */
  private final ExecutorService reader;

  TrainingCalls(RunFolders folders) {
    this.folders = folders;
    ThreadPoolExecutor pool =
        new ThreadPoolExecutor(
            1,
            1,
            10,
            TimeUnit.SECONDS,
            new ArrayBlockingQueue<>(MOST_WAITING),
            Thread.ofPlatform().daemon().name("wardrobe-runs").factory());
    pool.allowCoreThreadTimeOut(true);
    reader = pool;
  }

  /** Reads something. */
  private interface Reading<T> {
    T read() throws IOException;
  }

  private <T> void answer(StreamObserver<T> observer, Reading<T> reading) {
    try {
      reader.execute(
          () -> {
            T answer;
            try {
              answer = reading.read();
            } catch (IOException e) {
              observer.onError(
                  Status.UNAVAILABLE
                      .withDescription("runs cannot be read: " + e.getMessage())
                      .asRuntimeException());
              return;
            } catch (RuntimeException e) {
              observer.onError(e);
              return;
            }
            observer.onNext(answer);
            observer.onCompleted();
          });
    } catch (RejectedExecutionException e) {
      observer.onError(
          Status.UNAVAILABLE
              .withDescription("too many ask for runs; ask again later")
              .asRuntimeException());
    }
  }

  @Override
  public void listRuns(ListRunsRequest request, StreamObserver<ListRunsResponse> observer) {
    answer(observer, () -> ListRunsResponse.newBuilder().addAllRuns(folders.list()).build());
  }

  @Override
  public void getRun(GetRunRequest request, StreamObserver<GetRunResponse> observer) {
    answer(
        observer,
        () -> {
          GetRunResponse response = folders.get(request.getName());
          if (response == null) {
            throw Status.NOT_FOUND
                .withDescription("run: expected one that is listed, got another name; list them")
                .asRuntimeException();
          }
          return response;
        });
  }
}
