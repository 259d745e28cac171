/**
 * A Java client of the gRPC interface.
 *
 * <p>Asking an adapter, streamed:
 *
 * {@snippet :
 * try (WardrobeClient client = WardrobeClient.connect("127.0.0.1:7070")) {
 *   GenerateRequest request =
 *       GenerateRequest.newBuilder()
 *           .setAdapter("pirate")
 *           .addMessages(Message.newBuilder().setRole("user").setContent("Do you sell tents?"))
 *           .build();
 *   try (AnswerStream answer = client.chat(request)) {
 *     answer.forEachRemaining(event -> System.out.print(event.getDelta().getText()));
 *   }
 * }
 * }
 *
 * <p>{@link dev.wardrobe.client.WardrobeClient#builder} takes several servers, an API key, TLS,
 * deadlines and how often to try again; {@link dev.wardrobe.client.CallError} says why a call
 * failed.
 */
@NullMarked
package dev.wardrobe.client;

import org.jspecify.annotations.NullMarked;
