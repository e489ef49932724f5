import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.security.MessageDigest;
import java.util.HexFormat;

public class NetHttp {
  public static void main(String[] arguments) throws Exception {
    var client = HttpClient.newHttpClient();
    String[][] steps = {
      {"get", "GET", "/get"},
      {"post", "POST", "/echo"},
      {"big", "GET", "/big"},
      {"keep-1", "GET", "/keep/1"},
      {"keep-2", "GET", "/keep/2"},
      {"healed", "GET", "/healed"},
    };
    for (var step : steps) {
      var content = step[1].equals("POST")
          ? BodyPublishers.ofString("x".repeat(100_000))
          : BodyPublishers.noBody();
      var request = HttpRequest.newBuilder(URI.create(arguments[0] + step[2]))
          .method(step[1], content)
          .build();
      var response = client.send(request, BodyHandlers.ofByteArray());
      var hash = MessageDigest.getInstance("SHA-256").digest(response.body());
      System.out.printf("{\"step\":\"%s\",\"status\":%d,\"sha256\":\"%s\"}%n",
          step[0], response.statusCode(), HexFormat.of().formatHex(hash));
    }
  }
}
