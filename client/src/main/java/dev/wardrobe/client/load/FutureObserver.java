package dev.wardrobe.client.load;

import io.grpc.stub.StreamObserver;
import java.util.concurrent.CompletableFuture;

/** A call's one answer, to wait for. */
final class FutureObserver<T> implements StreamObserver<T> {
  private final CompletableFuture<T> result;

  FutureObserver(CompletableFuture<T> result) {
    this.result = result;
  }

  @Override
  public void onNext(T value) {
    result.complete(value);
  }

  @Override
  public void onError(Throwable failure) {
    result.completeExceptionally(failure);
  }

  @Override
  public void onCompleted() {
    result.completeExceptionally(new IllegalStateException("the call ended without an answer"));
  }
}
