package dev.wardrobe.grpc;

import static org.assertj.core.api.Assertions.assertThat;

import com.google.rpc.Code;
import com.google.rpc.RetryInfo;
import com.google.rpc.Status;
import dev.wardrobe.serve.RequestException;
import io.vertx.grpc.common.GrpcStatus;
import java.time.Duration;
import java.util.Base64;
import java.util.concurrent.CompletionException;
import java.util.concurrent.RejectedExecutionException;
import org.junit.jupiter.api.Test;

final class ErrorsTest {

  @Test
  void details_sayWhenToTryAgain() throws Exception {
    String trailer = Errors.details(GrpcStatus.RESOURCE_EXHAUSTED, "full", Duration.ofMillis(1250));
    Status status = Status.parseFrom(Base64.getDecoder().decode(trailer));
    assertThat(status.getCode()).isEqualTo(Code.RESOURCE_EXHAUSTED_VALUE);
    assertThat(status.getMessage()).isEqualTo("full");
    RetryInfo retry = status.getDetails(0).unpack(RetryInfo.class);
    assertThat(retry.getRetryDelay().getSeconds()).isEqualTo(1);
    assertThat(retry.getRetryDelay().getNanos()).isEqualTo(250_000_000);
  }

  @Test
  void status_ofThreadsThatTakeNothingAnyMore() {
    Throwable refused = new CompletionException(new RejectedExecutionException("pool size = 0"));
    assertThat(Errors.status(refused)).isEqualTo(GrpcStatus.UNAVAILABLE);
    assertThat(Errors.message(refused)).contains("stopping").doesNotContain("pool");
  }

  @Test
  void message_ofWhatNobodyForesaw_isNotTold() {
    Throwable unforeseen = new IllegalStateException("/etc/secret is null");
    assertThat(Errors.status(unforeseen)).isEqualTo(GrpcStatus.INTERNAL);
    assertThat(Errors.message(unforeseen)).isEqualTo("the server failed; its log says why");
    assertThat(
            Errors.message(
                new RequestException(RequestException.Code.INTERNAL, "the step failed; ask again")))
        .isEqualTo("the step failed; ask again");
  }

  @Test
  void retryAfter_ofWhatTellsNoTime() {
    assertThat(
            Errors.retryAfter(
                new RequestException(RequestException.Code.INVALID_ARGUMENT, "no such thing")))
        .isNull();
  }
}
