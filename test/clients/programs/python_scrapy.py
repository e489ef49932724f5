import scrapy
from scrapy.crawler import CrawlerProcess
from steps import BASE, STEPS, body_of, say


class Spider(scrapy.Spider):
    name = "steps"

    def request(self, index):
        step, method, path = STEPS[index]
        return scrapy.Request(
            BASE + path,
            method=method,
            body=body_of(method),
            cb_kwargs={"index": index},
            dont_filter=True,
        )

    def start_requests(self):
        yield self.request(0)

    def parse(self, response, index):
        say(STEPS[index][0], response.status, response.body)
        if index + 1 < len(STEPS):
            yield self.request(index + 1)


process = CrawlerProcess({"LOG_LEVEL": "WARNING", "TELNETCONSOLE_ENABLED": False})
process.crawl(Spider)
process.start()
